-- Sitrep: the ordered log of every event it took in, and read models that can be made again from it.
--
-- A read model keeps every version of a subject: the row holds from `from_position` up to, not including,
-- `until_position`; the newest version's end is the largest bigint. A report as of an earlier position is
-- therefore the same query as one of now.

CREATE TABLE log (
    position    bigint      PRIMARY KEY,
    received_at timestamptz NOT NULL,       -- later than that of the batch before, so an instant names one prefix
    source      text        NOT NULL,
    id          text        NOT NULL,
    topic       text        NOT NULL,
    key         text        NOT NULL,
    type        text        NOT NULL,
    subject     text        NOT NULL,
    sequence    bigint      NOT NULL,
    time        timestamptz NOT NULL,
    operation   text,
    exercise    boolean     NOT NULL,
    traceparent text,
    superseded  boolean     NOT NULL,       -- a state whose subject had a higher sequence in the log already
    lon         double precision,           -- where it is about, for the stream's bbox; its own point or its need's
    lat         double precision,
    data        bytea,                      -- NULL once redacted
    UNIQUE (source, id)
);
CREATE INDEX log_received ON log (received_at, position);
CREATE INDEX log_subject ON log (topic, subject, sequence);
CREATE INDEX log_operation ON log (operation, position);
CREATE INDEX log_redacted ON log (position) WHERE data IS NULL;

-- Events whose payload was redacted: it is not taken in either if the event arrives after the word of it.
CREATE TABLE redacted (
    event_id  text PRIMARY KEY
);

CREATE TABLE operation (
    operation_id   text        NOT NULL,
    from_position  bigint      NOT NULL,
    until_position bigint      NOT NULL,
    exercise       boolean     NOT NULL,
    title          text        NOT NULL,
    glide          text,
    hazards        text[]      NOT NULL,
    areas          text[]      NOT NULL,
    timezone       text        NOT NULL,
    lead           text,
    declared       text,
    level          text,
    decree         text,
    until          timestamptz,
    phase          text,
    opened_at      timestamptz NOT NULL,
    closed_at      timestamptz,
    PRIMARY KEY (operation_id, from_position)
);

CREATE TABLE report (
    report_id          uuid    NOT NULL,
    from_position      bigint  NOT NULL,
    until_position     bigint  NOT NULL,
    operation          text,
    exercise           boolean NOT NULL,
    operation_sequence bigint  NOT NULL,    -- of the event that the operation stands in
    received_at        timestamptz,         -- `time` of its receipt; NULL while only later events of it are known
    retracted          boolean NOT NULL,
    admin              text,
    admin_sequence     bigint  NOT NULL,
    incident_id        uuid,
    link_sequence      bigint  NOT NULL,
    PRIMARY KEY (report_id, from_position)
);
CREATE UNIQUE INDEX report_live ON report (report_id) WHERE until_position = 9223372036854775807;
CREATE INDEX report_until ON report (until_position);

CREATE TABLE incident (
    incident_id    uuid        NOT NULL,
    from_position  bigint      NOT NULL,
    until_position bigint      NOT NULL,
    operation      text,
    exercise       boolean     NOT NULL,
    title          text        NOT NULL,
    hazard         text,
    severity       integer     NOT NULL,
    status         text        NOT NULL,
    evidence       text        NOT NULL,
    lon            double precision,
    lat            double precision,
    admin          text,
    place          text,
    reports        integer     NOT NULL,
    affected       integer,
    displaced      integer,
    injured        integer,
    dead           integer,
    missing        integer,
    houses_heavy     integer,
    houses_moderate  integer,
    houses_light     integer,
    houses_flooded   integer,
    houses_damaged   integer,
    public_facilities_damaged integer,
    opened_at      timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    PRIMARY KEY (incident_id, from_position)
);
CREATE UNIQUE INDEX incident_live ON incident (incident_id) WHERE until_position = 9223372036854775807;
CREATE INDEX incident_until ON incident (until_position);

CREATE TABLE need (
    need_id        uuid    NOT NULL,
    from_position  bigint  NOT NULL,
    until_position bigint  NOT NULL,
    operation      text,
    exercise       boolean NOT NULL,
    incident_id    uuid,
    item           text,
    skill          text,
    unit           text    NOT NULL,
    severity       integer NOT NULL,
    status         text    NOT NULL,
    quantity       integer NOT NULL,
    lon            double precision,
    lat            double precision,
    admin          text,
    PRIMARY KEY (need_id, from_position)
);
CREATE UNIQUE INDEX need_live ON need (need_id) WHERE until_position = 9223372036854775807;
CREATE INDEX need_until ON need (until_position);

CREATE TABLE ledger (
    need_id        uuid    NOT NULL,
    from_position  bigint  NOT NULL,
    until_position bigint  NOT NULL,
    operation      text,
    exercise       boolean NOT NULL,
    incident_id    uuid,
    item           text,
    skill          text,
    unit           text    NOT NULL,
    severity       integer NOT NULL,
    admin          text,
    needed         integer NOT NULL,
    open           integer NOT NULL,
    offered        integer NOT NULL,
    committed      integer NOT NULL,
    in_transit     integer NOT NULL,
    delivered      integer NOT NULL,
    confirmed      integer NOT NULL,
    cancelled      integer NOT NULL,
    PRIMARY KEY (need_id, from_position)
);
CREATE UNIQUE INDEX ledger_live ON ledger (need_id) WHERE until_position = 9223372036854775807;
CREATE INDEX ledger_until ON ledger (until_position);

CREATE TABLE offer (
    offer_id       uuid    NOT NULL,
    from_position  bigint  NOT NULL,
    until_position bigint  NOT NULL,
    operation      text,
    exercise       boolean NOT NULL,
    need_id        uuid    NOT NULL,
    organisation   text,
    quantity       integer NOT NULL,
    state          text    NOT NULL,
    PRIMARY KEY (offer_id, from_position)
);
CREATE UNIQUE INDEX offer_live ON offer (offer_id) WHERE until_position = 9223372036854775807;
CREATE INDEX offer_until ON offer (until_position);

CREATE TABLE assignment (
    assignment_id  uuid    NOT NULL,
    from_position  bigint  NOT NULL,
    until_position bigint  NOT NULL,
    operation      text,
    exercise       boolean NOT NULL,
    need_id        uuid    NOT NULL,
    responder_id   uuid,
    organisation   text,
    quantity       integer NOT NULL,
    state          text    NOT NULL,
    PRIMARY KEY (assignment_id, from_position)
);
CREATE UNIQUE INDEX assignment_live ON assignment (assignment_id) WHERE until_position = 9223372036854775807;
CREATE INDEX assignment_until ON assignment (until_position);

CREATE TABLE responder (
    responder_id   uuid    NOT NULL,
    from_position  bigint  NOT NULL,
    until_position bigint  NOT NULL,
    exercise       boolean NOT NULL,
    status         text    NOT NULL,
    capacity       integer NOT NULL,
    PRIMARY KEY (responder_id, from_position)
);
CREATE UNIQUE INDEX responder_live ON responder (responder_id) WHERE until_position = 9223372036854775807;
CREATE INDEX responder_until ON responder (until_position);

-- What was published, as bytes. Not a read model: it cannot be made again, because it says what was said.
CREATE TABLE published (
    operation    text        NOT NULL,
    position     bigint      NOT NULL,
    as_of        timestamptz NOT NULL,
    published_at timestamptz NOT NULL,
    text_id      bytea       NOT NULL,
    text_en      bytea       NOT NULL,
    document     bytea       NOT NULL,
    PRIMARY KEY (operation, position)
);
