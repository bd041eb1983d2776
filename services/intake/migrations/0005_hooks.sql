-- What channels and form servers sent, by their own id, so that what is sent twice is done once.
CREATE TABLE hook_message (
    provider     text        NOT NULL,
    provider_id  text        NOT NULL,             -- holds no number
    digest       bytea,                            -- of a form, keyed: the same id must mean the same form
    report_id    uuid,                             -- the report that a form became
    answer       jsonb,                            -- what was said back to a message
    sealed       bytea,                            -- a form's answers as they came; NULL: a message, or taken away
    sealed_for   text,                             -- whose key they are sealed with
    received_at  timestamptz NOT NULL,
    PRIMARY KEY (provider, provider_id)
);
CREATE INDEX hook_message_report ON hook_message (report_id) WHERE report_id IS NOT NULL;

-- Photographs and recordings that we keep. The bytes are in a folder of their own, by their hash, each sealed with a
-- key of its own in the vault; where they are to be fetched is sealed too.
CREATE TABLE media (
    media_id     uuid        PRIMARY KEY,
    state        text        NOT NULL CHECK (state IN ('expected', 'wanted', 'kept', 'refused')),
    report_id    uuid,                             -- the report that named it first; NULL: none yet
    source       text        NOT NULL,             -- upload, or the provider
    reference    bytea,                            -- where to fetch it
    sha256       text,                             -- of what is kept
    type         text,                             -- by content
    size         integer,
    lon          double precision,                 -- where it was taken, as it said before that was taken out
    lat          double precision,
    tries        integer     NOT NULL DEFAULT 0,
    next_try_at  timestamptz,
    reason       text,                             -- why it was refused, or not had so far
    made_at      timestamptz NOT NULL,
    CHECK ((state = 'kept') = (sha256 IS NOT NULL)),
    CHECK ((state = 'wanted') = (next_try_at IS NOT NULL))
);
CREATE INDEX media_wanted ON media (next_try_at) WHERE state = 'wanted';
CREATE INDEX media_report ON media (report_id);
CREATE INDEX media_content ON media (sha256) WHERE sha256 IS NOT NULL;

-- Contents whose key was destroyed; their files go as soon as this is committed.
CREATE TABLE media_gone (
    sha256  text PRIMARY KEY
);

-- Photographs and voice notes that nobody has put into words yet.
CREATE INDEX report_untranscribed ON report (seq) WHERE text IS NULL AND title IS NULL AND media IS NOT NULL;
