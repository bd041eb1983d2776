-- Which report was taken from which partner's submission, by the id of the event: a redaction tells of no more.
-- Without a report: that event was redacted before it came here, and is not to be taken.
CREATE TABLE submission_report (
    event_id   text PRIMARY KEY,
    report_id  uuid
);
