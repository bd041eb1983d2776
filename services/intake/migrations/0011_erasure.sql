-- By what whoever was forgotten is found again in an older backup: ids of their reports, messages and family links, which
-- name nobody. Written to a file beside the database as well.
CREATE TABLE erasure (
    id         uuid        PRIMARY KEY,
    erased_at  timestamptz NOT NULL,
    by         text        NOT NULL
);
