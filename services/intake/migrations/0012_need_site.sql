-- A need may be one of an evacuation post (or other site); two posts may each need the same, of one incident, at one time.
ALTER TABLE need ADD COLUMN site_id uuid, ADD COLUMN hazard text;
DROP INDEX need_live;
CREATE UNIQUE INDEX need_live ON need (
    incident_id, coalesce(item, skill), (item IS NULL), window_start, window_end,
    coalesce(site_id, '00000000-0000-0000-0000-000000000000')
) WHERE status <> 'withdrawn';
CREATE INDEX need_site ON need (site_id) WHERE site_id IS NOT NULL;
