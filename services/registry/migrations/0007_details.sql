-- Crews, kits and pledges of lots; the history of what the authorities declared.

-- crew, seats, payload_kg (of one vehicle), contents, serves (of one kit), pledge_id, expected_at.
ALTER TABLE lot ADD COLUMN details jsonb NOT NULL DEFAULT '{}';

CREATE TABLE declared_status (
    operation text        NOT NULL REFERENCES operation,
    status    jsonb,                                    -- NULL: none is in force any more
    at        timestamptz NOT NULL,
    by        text        NOT NULL,
    reason    text
);
CREATE INDEX declared_status_operation ON declared_status (operation, at);
INSERT INTO declared_status (operation, status, at, by)
SELECT id, status, updated_at, 'before 0007' FROM operation WHERE status IS NOT NULL;
