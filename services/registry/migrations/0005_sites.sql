-- Sites: evacuation posts and the like, and every headcount that was ever taken there.

CREATE TABLE site (
    site_id      uuid        PRIMARY KEY,
    code         text        NOT NULL UNIQUE,          -- short: it is written by hand and sent by SMS
    kind         text        NOT NULL,
    name         text        NOT NULL,
    status       text        NOT NULL CHECK (status IN ('open', 'closed')),
    lon          float8,
    lat          float8,
    place        text,
    admin        text,
    organisation text,
    operation    text        NOT NULL REFERENCES operation,
    exercise     boolean     NOT NULL,
    capacity     bigint,
    facilities   text[]      NOT NULL DEFAULT '{}',
    manager      uuid        REFERENCES responder,     -- never in an event: it leads to a person
    standing     uuid,                                 -- the headcount that stands
    counts       bigint      NOT NULL DEFAULT 0,
    moved_to     uuid        REFERENCES site,
    opened_at    timestamptz NOT NULL,
    closed_at    timestamptz,
    updated_at   timestamptz NOT NULL,
    CHECK ((lon IS NULL) = (lat IS NULL)), CHECK (moved_to <> site_id)
);
CREATE INDEX site_operation ON site (operation, site_id);
CREATE INDEX site_manager ON site (manager) WHERE manager IS NOT NULL;

CREATE TABLE headcount (
    count_id     uuid        PRIMARY KEY,
    site_id      uuid        NOT NULL REFERENCES site,
    counted_at   timestamptz NOT NULL,
    count        jsonb       NOT NULL,
    taken_at     timestamptz NOT NULL
);
CREATE INDEX headcount_site ON headcount (site_id, counted_at DESC, taken_at DESC);
