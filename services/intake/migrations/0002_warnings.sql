-- Warnings. One is the chain of CAP messages about it; its id comes from the chain's first message.
CREATE TABLE warning (
    warning_id    uuid        PRIMARY KEY,
    seq           bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    state         text        NOT NULL CHECK (state IN ('active', 'cancelled', 'expired', 'merged')),
    status        text        NOT NULL,                -- actual, exercise, test
    operation     text,
    exercise      boolean     NOT NULL,
    message_id    uuid        NOT NULL,                -- the message in force
    content_id    uuid        NOT NULL,                -- the newest message that says anything: a Cancel may be empty
    messages      integer     NOT NULL,
    hazard        text,
    severity      smallint    NOT NULL,
    bbox          double precision[],
    expires_at    timestamptz NOT NULL,
    issued_at     timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    merged_into   uuid,
    body          jsonb       NOT NULL                 -- the newest event's data
);
CREATE INDEX warning_running ON warning (expires_at) WHERE state = 'active';

-- One CAP message each, as it came. Kept for ever; nothing is read from the columns that is not in `raw`, which is
-- read again to answer in CAP.
CREATE TABLE warning_message (
    message_id        uuid        PRIMARY KEY,
    seq               bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    warning_id        uuid,                            -- NULL: kept, but no warning (see `kept_for`)
    sender            text        NOT NULL,
    identifier        text        NOT NULL,
    sent              text        NOT NULL,            -- in UTC, as references are compared
    sent_at           timestamptz NOT NULL,
    type              text        NOT NULL,            -- alert, update, cancel, ack, error
    status            text        NOT NULL,
    scope             text        NOT NULL,
    origin            text        NOT NULL,
    trusted           boolean     NOT NULL,            -- from a feed that we chose, or by an operator
    by                text        NOT NULL,
    operation         text,
    received_at       timestamptz NOT NULL,
    raw               bytea       NOT NULL,
    digest            bytea       NOT NULL,
    signature         text        NOT NULL,
    signature_detail  text        NOT NULL,
    signed_by         text,
    signature_trusted boolean     NOT NULL,
    irregularities    jsonb       NOT NULL,
    ignored           boolean     NOT NULL DEFAULT false,  -- it may not change the warning that it speaks of
    kept_for          text,                            -- why it is no warning: a draft, an acknowledgement, not public
    UNIQUE (sender, identifier, sent)
);
CREATE INDEX warning_message_chain ON warning_message (warning_id);
CREATE INDEX warning_message_name ON warning_message (identifier, sent);

CREATE TABLE warning_reference (
    message_id  uuid    NOT NULL REFERENCES warning_message,
    nth         integer NOT NULL,
    sender      text    NOT NULL,
    identifier  text    NOT NULL,
    sent        text    NOT NULL,
    PRIMARY KEY (message_id, nth)
);
CREATE INDEX warning_reference_name ON warning_reference (identifier, sent);

-- The readiness needs that a warning called for.
CREATE TABLE warning_need (
    warning_id  uuid NOT NULL,
    operation   text NOT NULL,
    code        text NOT NULL,
    need_id     uuid NOT NULL REFERENCES need,
    PRIMARY KEY (warning_id, operation, code)
);
CREATE INDEX warning_need_place ON warning_need (operation, code);

-- What is known of a feed that is polled, and of its entries: each is fetched once.
CREATE TABLE warning_feed (
    url         text PRIMARY KEY,
    etag        text,
    modified    text,
    polled_at   timestamptz NOT NULL,
    succeeded_at timestamptz,
    failure     text                                   -- NULL: the last poll went well
);
CREATE TABLE warning_feed_entry (
    url         text        NOT NULL,
    guid        text        NOT NULL,
    seen_at     timestamptz NOT NULL,
    tries       integer     NOT NULL DEFAULT 0,
    settled     boolean     NOT NULL,
    refused     text,                                  -- why nothing was made of it
    PRIMARY KEY (url, guid)
);
