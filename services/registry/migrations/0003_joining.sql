-- Joining by a code, hours at which somebody may be sent, and who may check whose claims.

-- Shifts, recurring hours and the times and works for which they must not be sent. Kept here and not in events: why
-- somebody cannot come is nobody else's business. `renew_at`: when what was told of them must be worked out anew; NULL:
-- never by itself.
ALTER TABLE responder ADD COLUMN schedule jsonb NOT NULL DEFAULT '{}', ADD COLUMN renew_at timestamptz,
    ADD COLUMN leader boolean NOT NULL DEFAULT false;
CREATE INDEX responder_renewed ON responder (renew_at) WHERE renew_at IS NOT NULL;

-- The one code that was sent to a number. It lives for a day, so a number gets at most one message a day.
CREATE TABLE code (
    contact_id   text        PRIMARY KEY,
    responder_id uuid        NOT NULL REFERENCES responder,
    digest       bytea       NOT NULL,                -- keyed: six digits are quickly tried out
    tries        integer     NOT NULL DEFAULT 0 CHECK (tries BETWEEN 0 AND 5),
    sent_at      timestamptz NOT NULL,
    used_at      timestamptz
);
CREATE INDEX code_responder ON code (responder_id);

-- NULL: it answers for its own people in everything; else only these skills and certificates.
ALTER TABLE organisation ADD COLUMN may_verify text[], ADD COLUMN leads text[] NOT NULL DEFAULT '{}',
    ADD COLUMN phases text[] NOT NULL DEFAULT '{}';
