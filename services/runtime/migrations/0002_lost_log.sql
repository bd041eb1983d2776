-- A broker that lost its log (ADR 0007). Beside cluster_id, the log that the journal's places are in:
-- every row before low_water was read, and its offset committed, by every group that topics.py names as a reader;
-- rows after resent_to, up to resend_until, are still to be sent again, and no new row is sent before they are.
ALTER TABLE relay ADD COLUMN low_water    bigint NOT NULL DEFAULT 1;
ALTER TABLE relay ADD COLUMN resend_until bigint NOT NULL DEFAULT 0;
