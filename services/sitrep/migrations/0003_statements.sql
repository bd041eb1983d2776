-- History by day and month is counted from what authorities stated: of each area, day and file the latest statement.
-- The day is cut in the operation's zone when it is asked for, so area, file and instant are kept apart.
ALTER TABLE report
    DROP COLUMN statement,
    ADD COLUMN origin           text,       -- file, partner or channel that says so; NULL: it names no figures
    ADD COLUMN sensitivity      text,
    ADD COLUMN houses_heavy     integer,
    ADD COLUMN houses_moderate  integer,
    ADD COLUMN houses_light     integer,
    ADD COLUMN houses_flooded   integer,
    ADD COLUMN houses_damaged   integer,
    ADD COLUMN public_facilities_damaged integer;
