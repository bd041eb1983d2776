-- What changed, by name, so that a kept plan follows without loading everything again.
-- All null: anything may have. `accepted`: so many of the source's units became a promise to the need.
ALTER TABLE change
    ADD COLUMN need_id   uuid,
    ADD COLUMN source_id uuid,
    ADD COLUMN accepted  integer;

-- Counts the planner's steps: a planner whose memory is of another turn than the table's builds it anew.
ALTER TABLE plan ADD COLUMN turn bigint NOT NULL DEFAULT 1;
