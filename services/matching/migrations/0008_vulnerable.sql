-- The groups among the people in need that need more care, as intake read or was told them: within one severity they
-- go first.
ALTER TABLE need ADD COLUMN vulnerable text[] NOT NULL DEFAULT '{}';
