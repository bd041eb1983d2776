-- Notices that another service sent to a contact: the day's cap counts them as well. Kept for two days.
CREATE TABLE outbound_elsewhere (
    notice_id uuid        PRIMARY KEY,
    contact   text        NOT NULL,
    urgent    boolean     NOT NULL,
    at        timestamptz NOT NULL
);
CREATE INDEX outbound_elsewhere_contact ON outbound_elsewhere (contact, at);
