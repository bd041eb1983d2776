-- The tables that every service has in its own database schema.

CREATE TABLE outbox (
    position     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           uuid        NOT NULL,
    topic        text        NOT NULL,
    key          text        NOT NULL,
    type         text        NOT NULL,
    subject      text        NOT NULL,
    sequence     bigint      NOT NULL,
    time         timestamptz NOT NULL,
    operation    text,
    exercise     boolean     NOT NULL,
    traceparent  text,
    payload      bytea       NOT NULL
);
-- The table is emptied as fast as it fills: vacuum by count, not by share.
ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
                        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_analyze_scale_factor = 0,
                        autovacuum_analyze_threshold = 2000);

-- The newest sequence given out, by topic and subject. Its row lock keeps two writers of one subject in order.
CREATE TABLE subject_sequence (
    topic    text   NOT NULL,
    subject  text   NOT NULL,
    last     bigint NOT NULL,
    PRIMARY KEY (topic, subject)
) WITH (fillfactor = 80);

-- Append-only. hash covers the previous hash, the position, the attributes and the payload's SHA-256.
CREATE TABLE journal (
    position        bigint      PRIMARY KEY,
    id              uuid        NOT NULL UNIQUE,
    topic           text        NOT NULL,
    key             text        NOT NULL,
    type            text        NOT NULL,
    source          text        NOT NULL,
    subject         text        NOT NULL,
    sequence        bigint      NOT NULL,
    time            timestamptz NOT NULL,
    operation       text,
    exercise        boolean     NOT NULL,
    traceparent     text,
    payload         bytea,               -- NULL once redacted
    payload_sha256  bytea       NOT NULL,
    hash            bytea       NOT NULL,
    kafka_partition integer,             -- of its last sending; outside the hash
    kafka_offset    bigint
);
CREATE INDEX journal_subject ON journal (topic, subject, sequence);
CREATE INDEX journal_sent ON journal (topic, kafka_partition, kafka_offset);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'the journal is append-only';
    END IF;
    IF (NEW.position, NEW.id, NEW.topic, NEW.key, NEW.type, NEW.source, NEW.subject, NEW.sequence, NEW.time,
        NEW.exercise, NEW.payload_sha256, NEW.hash)
       IS DISTINCT FROM
       (OLD.position, OLD.id, OLD.topic, OLD.key, OLD.type, OLD.source, OLD.subject, OLD.sequence, OLD.time,
        OLD.exercise, OLD.payload_sha256, OLD.hash)
       OR (NEW.payload IS NOT NULL AND NEW.payload IS DISTINCT FROM OLD.payload) THEN
        RAISE EXCEPTION 'the journal is append-only; a payload may only be redacted';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER journal_append_only BEFORE UPDATE OR DELETE ON journal
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- State streams: the newest sequence of a subject that was applied here.
CREATE TABLE inbox_state (
    topic     text   NOT NULL,
    subject   text   NOT NULL,
    sequence  bigint NOT NULL,
    previous  bigint NOT NULL DEFAULT 0,   -- what stood here before the last claim: how a batch learns what is new
    PRIMARY KEY (topic, subject)
) WITH (fillfactor = 80);

-- Fact streams: every id that was applied here; kept as long as the journal.
CREATE TABLE inbox_fact (
    source      text        NOT NULL,
    id          text        NOT NULL,
    applied_at  timestamptz NOT NULL,
    PRIMARY KEY (source, id)
);

CREATE TABLE quarantine (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic         text        NOT NULL,
    kafka_partition integer   NOT NULL,
    kafka_offset  bigint      NOT NULL,
    origin        text,
    origin_id     text,
    reason        text        NOT NULL,
    pointer       text,
    sha256        bytea       NOT NULL,
    sealed        bytea       NOT NULL,     -- key, headers and value as received, encrypted
    state         text        NOT NULL DEFAULT 'refused' CHECK (state IN ('refused', 'releasing', 'released')),
    refused_at    timestamptz NOT NULL,
    released_by   text,
    release_reason text,
    mended        boolean     NOT NULL DEFAULT false,
    released_at   timestamptz,
    UNIQUE (topic, kafka_partition, kafka_offset, sha256)
);
CREATE INDEX quarantine_releasing ON quarantine (id) WHERE state = 'releasing';

CREATE TABLE idempotency (
    actor       text        NOT NULL,
    key         text        NOT NULL,
    digest      bytea       NOT NULL,
    status      integer,
    answer      bytea,
    made_at     timestamptz NOT NULL,
    PRIMARY KEY (actor, key)
);
CREATE INDEX idempotency_age ON idempotency (made_at);

-- One key per person, itself encrypted; erasing a person deletes the row.
CREATE TABLE vault_key (
    owner    text  PRIMARY KEY,
    wrapped  bytea NOT NULL
);

-- One row for each worker; over 5 s old is red.
CREATE TABLE heartbeat (
    worker       text        PRIMARY KEY,
    state        text        NOT NULL,
    detail       text,
    lag          bigint      NOT NULL DEFAULT 0,
    lag_by_topic jsonb       NOT NULL DEFAULT '{}',
    unpublished  bigint      NOT NULL DEFAULT 0,
    at           timestamptz NOT NULL
);

-- What the relay must remember between runs.
CREATE TABLE relay (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    cluster_id  text,
    resent_to   bigint NOT NULL DEFAULT 0
);
INSERT INTO relay DEFAULT VALUES;
