-- Areas that nobody is sent into for a time, as an operator drew them. Never deleted: `lifted_at` ends one early.
CREATE TABLE hazard_zone (
    zone_id    uuid        PRIMARY KEY,
    operation  text,
    exercise   boolean     NOT NULL,
    polygon    jsonb       NOT NULL,  -- one ring of [lon, lat], the last the same as the first
    period     tstzrange   NOT NULL CHECK (NOT isempty(period)),
    reason     text        NOT NULL,
    by         text        NOT NULL,
    made_at    timestamptz NOT NULL,
    lifted_at  timestamptz,
    lifted_by  text,
    lifted_reason text
);
CREATE INDEX hazard_zone_in_force ON hazard_zone (exercise, upper(period)) WHERE lifted_at IS NULL;

-- The severity a need counts as because it has waited so long; null: its own.
ALTER TABLE unmet ADD COLUMN counts_as smallint;
