-- Promises that somebody is asked to give back, and promises of which nobody has heard for too long.
-- `release_asked_at`: since when; cleared when they set out, or when it is needed again.
-- `heard_at`: when whoever holds it last said anything. `check_at`: when the next word is due; null: nobody waits.
-- `overdue`: how far its silence was carried: 0 not, 1 to the holder, 2 to the organisation, 3 to the dispatcher.
ALTER TABLE assignment
    ADD COLUMN release_asked_at timestamptz,
    ADD COLUMN release_reason   text,
    ADD COLUMN heard_at         timestamptz,
    ADD COLUMN check_at         timestamptz,
    ADD COLUMN overdue          smallint NOT NULL DEFAULT 0 CHECK (overdue BETWEEN 0 AND 3),
    ADD CONSTRAINT assignment_release_of_made CHECK (release_asked_at IS NULL OR state IN ('made', 'started', 'abandoned'));
CREATE INDEX assignment_check ON assignment (check_at) WHERE state IN ('made', 'started', 'arrived');
