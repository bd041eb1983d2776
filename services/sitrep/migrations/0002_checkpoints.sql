-- Reports that do not read the whole log: a tally is kept every so many positions, and a report adds to it what
-- changed since. It looks changed subjects up by their key, so that the ends of versions need no index of their own.

DROP INDEX report_until, incident_until, need_until, ledger_until, offer_until, assignment_until, responder_until;
CREATE INDEX report_incident ON report (incident_id) WHERE incident_id IS NOT NULL;
CREATE INDEX need_incident ON need (incident_id) WHERE incident_id IS NOT NULL;
CREATE INDEX ledger_incident ON ledger (incident_id) WHERE incident_id IS NOT NULL;
CREATE INDEX offer_need ON offer (need_id);
CREATE INDEX assignment_need ON assignment (need_id);

CREATE TABLE checkpoint (
    position bigint  PRIMARY KEY,
    rules    integer NOT NULL,              -- tally.RULES by which it was counted
    tally    bytea   NOT NULL
);

-- What a report says of people and who says so: government and others side by side.
ALTER TABLE report
    ADD COLUMN said_by     text,            -- official, organisation, public; NULL: it names no figures
    ADD COLUMN statement   text,            -- area, day and file of a row of an official file
    ADD COLUMN observed_at timestamptz,
    ADD COLUMN affected    integer,
    ADD COLUMN displaced   integer,
    ADD COLUMN injured     integer,
    ADD COLUMN dead        integer,
    ADD COLUMN missing     integer;

ALTER TABLE incident
    ADD COLUMN levels      text,            -- evidence of each figure, one letter each; NULL: that of the incident
    ADD COLUMN sensitivity text;
ALTER TABLE need
    ADD COLUMN starts_at   timestamptz,
    ADD COLUMN sensitivity text;
ALTER TABLE assignment ADD COLUMN overdue integer NOT NULL DEFAULT 0;
ALTER TABLE operation ADD COLUMN bbox double precision[];

CREATE TABLE site (
    site_id        uuid    NOT NULL,
    from_position  bigint  NOT NULL,
    until_position bigint  NOT NULL,
    operation      text,
    exercise       boolean NOT NULL,
    name           text    NOT NULL,
    code           text    NOT NULL,
    kind           text    NOT NULL,
    status         text    NOT NULL,
    lon            double precision,
    lat            double precision,
    admin          text,
    place          text,
    organisation   text,
    capacity       integer,
    alarm          text    NOT NULL,
    counted_at     timestamptz,
    heads          jsonb   NOT NULL,        -- people, households and each part that was counted
    PRIMARY KEY (site_id, from_position)
);
CREATE UNIQUE INDEX site_live ON site (site_id) WHERE until_position = 9223372036854775807;

CREATE TABLE warning (
    warning_id     uuid    NOT NULL,
    from_position  bigint  NOT NULL,
    until_position bigint  NOT NULL,
    exercise       boolean NOT NULL,
    state          text    NOT NULL,
    status         text    NOT NULL,
    hazard         text,
    severity       integer NOT NULL,
    effective_at   timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    area           jsonb   NOT NULL,        -- polygons, points, bbox, codes
    PRIMARY KEY (warning_id, from_position)
);
CREATE UNIQUE INDEX warning_live ON warning (warning_id) WHERE until_position = 9223372036854775807;

-- The published reports' further formats, and the one before that each is compared with.
ALTER TABLE published
    ADD COLUMN since_position bigint,
    ADD COLUMN html_id        bytea,
    ADD COLUMN html_en        bytea,
    ADD COLUMN csv_id         bytea,
    ADD COLUMN csv_en         bytea;
