-- Matching's offers, copied as far as people are written to and answer by message. `code` is what they name one by; it
-- counts among their own open offers only, so it tells nobody anything about others.
CREATE TABLE offer (
    offer_id      uuid        PRIMARY KEY,
    need_id       uuid        NOT NULL,
    responder_id  uuid        NOT NULL,
    contact       text,                                 -- contact id; NULL: no number, or erased
    code          text        NOT NULL,
    state         text        NOT NULL CHECK (state IN ('made', 'accepted', 'declined', 'expired', 'withdrawn')),
    item          text,
    skill         text,
    quantity      bigint      NOT NULL,
    severity      smallint,
    window_start  timestamptz NOT NULL,
    window_end    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    operation     text,
    exercise      boolean     NOT NULL,
    answered      boolean,                              -- what they said by message: yes, no; NULL: nothing yet
    answered_at   timestamptz,                          -- when they said it, by their provider's clock
    answered_by   uuid,                                 -- the message that said it
    changed_at    timestamptz NOT NULL
);
CREATE UNIQUE INDEX offer_code ON offer (contact, code) WHERE state = 'made' AND contact IS NOT NULL;
CREATE INDEX offer_contact ON offer (contact, changed_at) WHERE contact IS NOT NULL;
CREATE INDEX offer_responder ON offer (responder_id);
