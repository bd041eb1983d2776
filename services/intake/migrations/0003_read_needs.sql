-- Needs read in the text of a report that states none: [{item or skill, quantity, label, assumed, words: [[start, end]]}].
-- The places count in title and text as stored, a line break between them.
ALTER TABLE report ADD COLUMN read_needs jsonb;
