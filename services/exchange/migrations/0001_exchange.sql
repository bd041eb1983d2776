-- What partners sent and was let pass, so that a repeat is known; and who may speak under which origin.

CREATE TABLE submission (
    submission_id uuid        PRIMARY KEY,
    origin        text        NOT NULL,           -- the CloudEvents source
    origin_id     text        NOT NULL,           -- the CloudEvents id
    external_id   text,
    organisation  text,
    known         boolean     NOT NULL,           -- the partner proved who it is
    received_at   timestamptz NOT NULL,
    repeats       bigint      NOT NULL DEFAULT 0, -- how often it came again
    UNIQUE (origin, origin_id)
);
CREATE UNIQUE INDEX submission_external ON submission (origin, external_id) WHERE external_id IS NOT NULL;

-- Beside /partners/<organisation>, which is each organisation's own.
CREATE TABLE origin (
    origin       text        PRIMARY KEY,
    organisation text        NOT NULL,
    granted_by   text        NOT NULL,
    granted_at   timestamptz NOT NULL
);
