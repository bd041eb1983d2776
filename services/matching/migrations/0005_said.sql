-- Why, as it was when the question was asked (rank, best alternative and its price, and in words by language), and why
-- units are unmet, in words by language. Written by the planner: who reads it need not load the engine.
ALTER TABLE offer ADD COLUMN why jsonb;
ALTER TABLE unmet ADD COLUMN said jsonb;
