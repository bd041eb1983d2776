-- What each reader still lacks of what this service said, by consumer group and topic, and when that was asked: so it
-- is known of a reader that is down as well.
ALTER TABLE relay ADD COLUMN reader_lag jsonb NOT NULL DEFAULT '{}';
ALTER TABLE relay ADD COLUMN marked_at timestamptz;
