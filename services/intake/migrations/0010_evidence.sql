-- What was read in a report's text beside its needs: {urgency, depth_cm, persons, vulnerable, labels, drill}; what is
-- not there was not said. Worked out when the report is linked.
ALTER TABLE report ADD COLUMN reading jsonb;
ALTER TABLE report ADD COLUMN sensitivity text;               -- the protected class that its words speak of
ALTER TABLE report ADD COLUMN overdue text;                   -- the wait that was told as too long

ALTER TABLE incident ADD COLUMN facts jsonb NOT NULL DEFAULT '{}';        -- fact -> evidence
ALTER TABLE incident ADD COLUMN disputed text[] NOT NULL DEFAULT '{}';    -- facts that somebody contradicts
ALTER TABLE incident ADD COLUMN sensitivity text;
ALTER TABLE incident ADD COLUMN sensitivity_set boolean NOT NULL DEFAULT false;  -- by an operator: no rule changes it
ALTER TABLE incident ADD COLUMN priority smallint NOT NULL DEFAULT 0;
ALTER TABLE incident ADD COLUMN reasons jsonb NOT NULL DEFAULT '[]';      -- [[cause, found, points]]
ALTER TABLE incident ADD COLUMN attend_by timestamptz;        -- NULL: somebody has looked at it
ALTER TABLE incident ADD COLUMN attended_at timestamptz;
ALTER TABLE incident ADD COLUMN overdue_at timestamptz;       -- when it was told as overdue
ALTER TABLE incident ADD COLUMN triage_at timestamptz;        -- when waiting has made it more urgent; NULL: never again
ALTER TABLE incident ADD COLUMN water_depth_cm double precision;
ALTER TABLE incident ADD COLUMN persons integer;              -- as the texts speak of
ALTER TABLE incident ADD COLUMN vulnerable text[] NOT NULL DEFAULT '{}';
ALTER TABLE incident ADD COLUMN exercise_suggested boolean NOT NULL DEFAULT false;
-- Where the public sees it. Whoever may not see the point must not find it by asking with ever smaller boxes.
ALTER TABLE incident ADD COLUMN public_lon double precision;
ALTER TABLE incident ADD COLUMN public_lat double precision;
CREATE INDEX incident_priority ON incident (priority, incident_id) WHERE status = 'open';
CREATE INDEX incident_attend ON incident (attend_by) WHERE status = 'open' AND attend_by IS NOT NULL AND overdue_at IS NULL;
CREATE INDEX incident_triage ON incident (triage_at) WHERE status = 'open' AND triage_at IS NOT NULL;

-- What the fact was when somebody vouched for it; NULL: nobody had said anything of it.
ALTER TABLE incident_fact ADD COLUMN value jsonb;

ALTER TABLE need ADD COLUMN sensitivity text;
ALTER TABLE need ADD COLUMN persons integer;
ALTER TABLE need ADD COLUMN vulnerable text[] NOT NULL DEFAULT '{}';
CREATE INDEX need_drafts ON need (made_at) WHERE status = 'draft';

-- Where in the report's text a need was read: [[start, end]]; NULL: the report states it.
ALTER TABLE need_ask ADD COLUMN words jsonb;
ALTER TABLE need_ask ADD COLUMN assumed boolean NOT NULL DEFAULT false;
