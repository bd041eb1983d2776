-- The graver need for which a promise was asked back, so that no more are asked than it lacks, and none in vain.
ALTER TABLE assignment ADD COLUMN release_for uuid;
CREATE INDEX assignment_release_for ON assignment (release_for) WHERE release_for IS NOT NULL;
