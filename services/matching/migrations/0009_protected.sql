-- The protected class of what a need is about, so that everything that follows from it bears the same word.
ALTER TABLE need ADD COLUMN sensitivity text;
