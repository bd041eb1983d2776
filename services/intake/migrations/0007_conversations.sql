-- Talking with people who write to us. Addresses and what is private of their words are sealed with their key.

-- One contact each: how they are reached, what they were asked, and a position that came before the report it is of.
CREATE TABLE conversation (
    contact       text        PRIMARY KEY,
    channel       text        NOT NULL,
    language      text,
    sealed        bytea       NOT NULL,                 -- the address
    written_at    timestamptz NOT NULL,                 -- when they last wrote
    pin_lon       double precision,
    pin_lat       double precision,
    pin_place     text,                                 -- masked
    pin_at        timestamptz,
    unclear       integer     NOT NULL DEFAULT 0,       -- asked back so often since unclear_at: no machine talks for ever
    unclear_at    timestamptz
);

-- One text each, without its words.
CREATE TABLE inbound_message (
    message_id    uuid        PRIMARY KEY,
    contact       text        NOT NULL,
    channel       text        NOT NULL,
    intent        text        NOT NULL,
    report_id     uuid,
    templates     text[]      NOT NULL,                 -- what was answered
    received_at   timestamptz NOT NULL
);
CREATE INDEX inbound_message_contact ON inbound_message (contact, received_at);

-- Reports that came by message: whether it was asked where they are, and what their sender was told of them since.
CREATE TABLE followed (
    report_id     uuid        PRIMARY KEY REFERENCES report,
    contact       text        NOT NULL,
    asked_at      timestamptz,                          -- "where?" was asked and is not answered; NULL: not asked, or is
    told          text[]      NOT NULL DEFAULT '{}',
    checked_at    timestamptz NOT NULL,
    ended_at      timestamptz                           -- nothing more is to be told
);
CREATE INDEX followed_asked ON followed (contact, asked_at) WHERE asked_at IS NOT NULL;
CREATE INDEX followed_contact ON followed (contact);
CREATE INDEX followed_open ON followed (checked_at) WHERE ended_at IS NULL;

-- People who ask for missing relatives. For operators alone; never in an event.
CREATE TABLE family_link (
    link_id       uuid        PRIMARY KEY,
    code          text        NOT NULL UNIQUE,
    contact       text        NOT NULL,
    sealed        bytea       NOT NULL,                 -- {text, address, channel}
    made_at       timestamptz NOT NULL,
    closed_at     timestamptz,
    closed_by     text,
    outcome       text
);
CREATE INDEX family_link_made ON family_link (made_at, link_id);

-- Who read which of them, and why.
CREATE TABLE family_link_access (
    link_id       uuid        NOT NULL REFERENCES family_link,
    by            text        NOT NULL,
    reason        text        NOT NULL,
    at            timestamptz NOT NULL
);
