-- Messages to people, one row each (see services/channels/outbound.py). The registry's table is the same; each service
-- that sends has one of its own, and those that hold no contact have none.
CREATE TABLE outbound (
    outbound_id    uuid        PRIMARY KEY,              -- also the key that the provider is given, at every try
    seq            bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    about          text        NOT NULL UNIQUE,          -- what it is about: the same words are the same message
    contact        text        NOT NULL,                 -- contact id
    channel        text        NOT NULL CHECK (channel IN ('sms', 'whatsapp', 'email', 'webhook')),
    template       text        NOT NULL,
    kind           text        NOT NULL CHECK (kind IN ('notice', 'reply', 'code')),
    language       text        NOT NULL,
    sealed         bytea       NOT NULL,                 -- {to, values}, with the contact's key
    urgent         boolean     NOT NULL,                 -- life at risk: not held back by night
    zone           text,
    expires_at     timestamptz,
    operation      text,
    exercise       boolean     NOT NULL,
    reply_to       uuid,
    state          text        NOT NULL
                   CHECK (state IN ('waiting', 'attempting', 'sent', 'delivered', 'failed', 'dropped')),
    tries          integer     NOT NULL DEFAULT 0,
    doubled        boolean     NOT NULL DEFAULT false,   -- may have reached them twice
    due_at         timestamptz NOT NULL,
    made_at        timestamptz NOT NULL,
    first_tried_at timestamptz,
    attempted_at   timestamptz,                          -- set before the provider is called
    sent_at        timestamptz,
    ended_at       timestamptz,
    provider_id    text,
    reason         text
);
CREATE INDEX outbound_due ON outbound (urgent DESC, due_at, seq) WHERE state = 'waiting';
CREATE INDEX outbound_attempting ON outbound (seq) WHERE state = 'attempting';
CREATE INDEX outbound_contact ON outbound (contact, first_tried_at);
CREATE INDEX outbound_provider ON outbound (provider_id) WHERE provider_id IS NOT NULL;

-- Who asked to be left alone: no notices, only answers to what they write.
CREATE TABLE outbound_stop (
    contact  text        PRIMARY KEY,
    at       timestamptz NOT NULL
);
