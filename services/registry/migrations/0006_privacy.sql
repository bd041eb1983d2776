-- Consent by purpose, who looked at whose contact data and why, and who was erased.

CREATE TABLE consent (
    responder_id uuid        NOT NULL REFERENCES responder,
    purpose      text        NOT NULL,
    version      text        NOT NULL,                  -- of the text that was shown
    given_at     timestamptz NOT NULL,
    given_by     text        NOT NULL,
    withdrawn_at timestamptz,
    withdrawn_by text
);
CREATE UNIQUE INDEX consent_given ON consent (responder_id, purpose) WHERE withdrawn_at IS NULL;
CREATE INDEX consent_responder ON consent (responder_id);

-- Append-only. `reason` as the reader gave it, without numbers and addresses.
CREATE TABLE access (
    access_id    bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL,
    actor        text        NOT NULL,
    organisation text,
    responder_id uuid        NOT NULL,
    reason       text        NOT NULL,
    break_glass  boolean     NOT NULL DEFAULT false
);
CREATE INDEX access_responder ON access (responder_id, access_id);
CREATE INDEX access_break_glass ON access (access_id) WHERE break_glass;
CREATE FUNCTION refuse_access_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the access log is append-only';
END $$;
CREATE TRIGGER access_append_only BEFORE UPDATE OR DELETE ON access
    FOR EACH ROW EXECUTE FUNCTION refuse_access_change();

-- Written to a file beside the database as well, so that a backup that is older is erased again when it is restored.
CREATE TABLE erasure (
    responder_id uuid        PRIMARY KEY,
    erased_at    timestamptz NOT NULL,
    by           text        NOT NULL
);
INSERT INTO erasure (responder_id, erased_at, by)
SELECT responder_id, erased_at, 'before 0006' FROM responder WHERE erased_at IS NOT NULL;
