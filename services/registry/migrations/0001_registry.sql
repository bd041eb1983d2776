-- Operations, organisations, responders with their sealed contacts, and stock.

CREATE TABLE operation (
    id         text        PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,63}$'),
    title      text        NOT NULL,
    glide      text,
    hazards    text[]      NOT NULL DEFAULT '{}',
    areas      text[]      NOT NULL DEFAULT '{}',
    bbox       float8[],                            -- west, south, east, north
    timezone   text        NOT NULL,
    lead       text,
    status     jsonb,                               -- what the authorities declared
    phase      text,
    exercise   boolean     NOT NULL DEFAULT false,
    opened_at  timestamptz NOT NULL,
    closed_at  timestamptz,
    updated_at timestamptz NOT NULL,
    CONSTRAINT standing_is_open CHECK (id <> 'standing' OR (closed_at IS NULL AND NOT exercise))
);

CREATE TABLE organisation (
    id         text        PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,63}$'),
    name       text        NOT NULL,
    kind       text        NOT NULL,
    sectors    text[]      NOT NULL DEFAULT '{}',
    areas      text[]      NOT NULL DEFAULT '{}',
    made_at    timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- What the events say of a responder; nothing here names a person. An erased one leaves its id and its status.
CREATE TABLE responder (
    responder_id uuid        PRIMARY KEY,
    kind         text        NOT NULL CHECK (kind IN ('person', 'team')),
    status       text        NOT NULL CHECK (status IN ('unconfirmed', 'confirmed', 'withdrawn')),
    contact_id   text        UNIQUE,
    organisation text,
    operation    text,                              -- for which it was registered; it serves any
    exercise     boolean     NOT NULL DEFAULT false,
    home_cell    text,                              -- H3, resolution 8
    profile      jsonb       NOT NULL,              -- skills, certificates, languages, limits, availability
    made_at      timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    erased_at    timestamptz
);
CREATE INDEX responder_organisation ON responder (organisation, responder_id) WHERE erased_at IS NULL;
CREATE INDEX responder_skills ON responder USING gin ((profile -> 'skills') jsonb_path_ops);

-- Name, number and exact home, encrypted with the key of `owner` (the contact id, where there is a number).
CREATE TABLE contact (
    responder_id uuid  PRIMARY KEY REFERENCES responder,
    owner        text  NOT NULL,
    sealed       bytea NOT NULL
);

-- By what a responder is known again: the contact id of its number, and a keyed hash of (source, external_id).
-- Whoever registers locks these rows, in order, before all else. responder_id is NULL only inside a transaction.
CREATE TABLE known_as (
    key          text PRIMARY KEY,
    responder_id uuid REFERENCES responder
);
CREATE INDEX known_as_responder ON known_as (responder_id);

-- A lot: a stock of one item at one place.
CREATE TABLE lot (
    lot_id            uuid        PRIMARY KEY,
    source            text,
    external_id       text,
    kind              text        NOT NULL CHECK (kind IN ('stock', 'vehicle', 'pledge')),
    item              text        NOT NULL,
    quantity          bigint      NOT NULL CHECK (quantity >= 0),
    unit              text        NOT NULL,
    lon               float8      NOT NULL,
    lat               float8      NOT NULL,
    place             text,
    organisation      text,
    operation         text,
    exercise          boolean     NOT NULL DEFAULT false,
    delivery_limit_km float8      NOT NULL,
    expires_at        timestamptz,
    status            text        NOT NULL CHECK (status IN ('available', 'withdrawn')),
    made_at           timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    UNIQUE (source, external_id)
);
CREATE INDEX lot_item ON lot (item, lot_id);
CREATE INDEX lot_organisation ON lot (organisation, lot_id);
