-- Operations as the registry tells of them. `standing` is known without a row.
CREATE TABLE operation (
    operation   text        PRIMARY KEY,
    title       text        NOT NULL,
    exercise    boolean     NOT NULL,
    hazards     text[]      NOT NULL DEFAULT '{}',
    areas       text[]      NOT NULL DEFAULT '{}',
    bbox        double precision[],            -- west, south, east, north
    timezone    text        NOT NULL,
    opened_at   timestamptz NOT NULL,
    closed_at   timestamptz
);

-- One message each, as received. title, text and place are masked; what was masked is in `sealed`.
CREATE TABLE report (
    report_id        uuid        PRIMARY KEY,
    seq              bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,  -- order of receipt
    ticket           text        NOT NULL UNIQUE,
    state            text        NOT NULL CHECK (state IN ('held', 'unplaced', 'waiting', 'linked')),
    named_operation  text,                        -- what it named, known or not
    operation        text,                        -- where it belongs; NULL while held
    exercise         boolean     NOT NULL DEFAULT false,
    origin           text        NOT NULL,
    external_id      text,
    external_url     text,
    title            text,
    text             text,
    link_text        text,                        -- as text, keyed hashes in place of numbers; NULL: same as text
    sealed           bytea,                       -- JSON of what was masked and who reported; NULL: nothing was
    sealed_for       text,                        -- whose key it is sealed with
    contact          text,                        -- contact id
    voice            text,                        -- whose word it is, for independence; NULL: nobody can tell
    organisation     text,
    proven           boolean     NOT NULL DEFAULT false,   -- the sender proved who it is
    official         boolean     NOT NULL DEFAULT false,
    reporter_kind    text        NOT NULL,
    language         text,
    hazard           text,
    severity         smallint,
    lon              double precision,
    lat              double precision,
    accuracy_m       double precision,
    place            text,
    admin            text,
    observed_at      timestamptz NOT NULL,
    stated_at        timestamptz,                 -- what it said where that lay in the future
    received_at      timestamptz NOT NULL,
    people           jsonb,
    damage           jsonb,
    needs            jsonb,
    media            jsonb,
    bulk             boolean     NOT NULL DEFAULT false,
    incident_id      uuid,
    copy_of          uuid,
    exact_copy       boolean     NOT NULL DEFAULT false,   -- same text and pin as an earlier one of its incident
    linked_at        timestamptz,
    linked_by        text,
    score            double precision,
    parts            jsonb,
    suggested        uuid,                        -- the incident that a person should look at
    CHECK (state <> 'linked' OR incident_id IS NOT NULL),
    CHECK (state = 'linked' OR incident_id IS NULL)
);
CREATE INDEX report_waiting ON report (operation, bulk, seq) WHERE state = 'waiting';
CREATE INDEX report_held ON report (received_at) WHERE state = 'held';
CREATE INDEX report_unplaced ON report (operation, seq) WHERE state = 'unplaced';
CREATE INDEX report_incident ON report (incident_id, seq);
CREATE INDEX report_operation ON report (operation, seq);

CREATE TABLE incident (
    incident_id        uuid        PRIMARY KEY,
    operation          text        NOT NULL,
    exercise           boolean     NOT NULL,
    title              text        NOT NULL,
    hazard             text,
    severity           smallint    NOT NULL,
    status             text        NOT NULL CHECK (status IN ('open', 'closed', 'merged')),
    evidence           text        NOT NULL,
    verified           text,                      -- what somebody vouched for; evidence is never below it
    verified_at        timestamptz,
    lon                double precision,
    lat                double precision,
    admin              text,
    place              text,
    reports            integer     NOT NULL,
    newest_reports     uuid[]      NOT NULL DEFAULT '{}',
    people             jsonb       NOT NULL DEFAULT '{}',
    damage             jsonb       NOT NULL DEFAULT '{}',
    opened_at          timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    closed_at          timestamptz,
    first_observed_at  timestamptz NOT NULL,
    last_observed_at   timestamptz NOT NULL,
    merged_into        uuid REFERENCES incident,
    CHECK ((status = 'merged') = (merged_into IS NOT NULL))
);
CREATE INDEX incident_operation ON incident (operation, incident_id);
CREATE INDEX incident_updated ON incident (updated_at);

-- What somebody vouched for of one fact of an incident (`people.dead`, `hazard`).
CREATE TABLE incident_fact (
    incident_id  uuid        NOT NULL REFERENCES incident,
    fact         text        NOT NULL,
    evidence     text        NOT NULL,
    by           text        NOT NULL,
    reason       text        NOT NULL,
    at           timestamptz NOT NULL,
    PRIMARY KEY (incident_id, fact)
);

-- Every change of which report is in which incident, in the order made. Written under the operation's lock only, so
-- that change_id is in the order of commits within an operation and an index in memory can follow it.
CREATE TABLE link_change (
    change_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    operation    text   NOT NULL,
    kind         text   NOT NULL CHECK (kind IN ('add', 'move', 'remove', 'merge', 'close')),
    report_id    uuid,
    incident_id  uuid,
    other_id     uuid                              -- merge: the incident that is merged into incident_id
);
CREATE INDEX link_change_operation ON link_change (operation, change_id);

CREATE TABLE need (
    need_id        uuid        PRIMARY KEY,
    incident_id    uuid REFERENCES incident,
    operation      text        NOT NULL,
    exercise       boolean     NOT NULL,
    item           text,
    skill          text,
    unit           text        NOT NULL,
    quantity       integer     NOT NULL CHECK (quantity > 0),
    figure         integer,                        -- an operator's figure: goes before what reports ask
    severity       smallint    NOT NULL,
    status         text        NOT NULL CHECK (status IN ('draft', 'declared', 'withdrawn')),
    lon            double precision,
    lat            double precision,
    accuracy_m     double precision,
    place          text,
    admin          text,
    window_start   timestamptz NOT NULL,
    window_end     timestamptz NOT NULL,
    requires       jsonb       NOT NULL DEFAULT '{}',
    bundle_id      uuid,
    people         jsonb,
    organisation   text,                           -- the partner that posted it
    small_contact  text,                           -- declared as small on this anonymous contact's word
    made_at        timestamptz NOT NULL,
    declared_at    timestamptz,
    updated_at     timestamptz NOT NULL,
    by             text        NOT NULL,
    reason         text,
    CHECK ((item IS NULL) <> (skill IS NULL)),
    CHECK (window_end > window_start),
    CHECK (status <> 'declared' OR lon IS NOT NULL)
);
CREATE UNIQUE INDEX need_live ON need (incident_id, coalesce(item, skill), (item IS NULL), window_start, window_end)
    WHERE status <> 'withdrawn';
CREATE INDEX need_incident ON need (incident_id);
CREATE INDEX need_operation ON need (operation, need_id);
CREATE INDEX need_small ON need (small_contact, declared_at) WHERE small_contact IS NOT NULL;

-- Which reports ask for a need, and how much each.
CREATE TABLE need_ask (
    need_id    uuid    NOT NULL REFERENCES need,
    report_id  uuid    NOT NULL REFERENCES report,
    quantity   integer NOT NULL,
    counts     boolean NOT NULL,                   -- may raise a declared need
    PRIMARY KEY (need_id, report_id)
);
CREATE INDEX need_ask_report ON need_ask (report_id);

-- Matching's ledger, copied.
CREATE TABLE ledger (
    need_id     uuid        PRIMARY KEY,
    needed      bigint      NOT NULL,
    open        bigint      NOT NULL,
    offered     bigint      NOT NULL,
    committed   bigint      NOT NULL,
    in_transit  bigint      NOT NULL,
    delivered   bigint      NOT NULL,
    confirmed   bigint      NOT NULL,
    cancelled   bigint      NOT NULL,
    asked       bigint      NOT NULL,
    at          timestamptz NOT NULL
);

-- Matching's assignments, copied: what a ticket tells.
CREATE TABLE assignment (
    assignment_id  uuid        PRIMARY KEY,
    need_id        uuid        NOT NULL,
    state          text        NOT NULL,
    quantity       bigint      NOT NULL,
    organisation   text,
    first_at       timestamptz NOT NULL,
    at             timestamptz NOT NULL
);
CREATE INDEX assignment_need ON assignment (need_id);
