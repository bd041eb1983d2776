-- What people said of rest, hours and where they must not be sent; who must come with a vehicle or boat; at which site
-- a need is, and of which hazard.
ALTER TABLE responder ADD COLUMN rest_h double precision, ADD COLUMN max_hours_day double precision,
    ADD COLUMN avoids text[] NOT NULL DEFAULT '{}';
ALTER TABLE lot ADD COLUMN crew jsonb NOT NULL DEFAULT '[]';
CREATE INDEX lot_crewed ON lot (lot_id) WHERE crew <> '[]';
ALTER TABLE need ADD COLUMN hazard text, ADD COLUMN site_id uuid;
ALTER TABLE operation ADD COLUMN hazards text[] NOT NULL DEFAULT '{}';
