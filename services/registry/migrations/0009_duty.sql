-- Whom an organisation's questions about its stock go to; sealed with the number's own key.
CREATE TABLE duty (
    organisation text        PRIMARY KEY REFERENCES organisation,
    contact      text        NOT NULL,
    sealed       bytea       NOT NULL,
    channel      text        NOT NULL CHECK (channel IN ('sms', 'whatsapp')),
    language     text        NOT NULL,
    updated_at   timestamptz NOT NULL
);
CREATE INDEX duty_contact ON duty (contact);

-- Notices that another service sent to a contact: the day's cap counts them as well. Kept for two days.
CREATE TABLE outbound_elsewhere (
    notice_id uuid        PRIMARY KEY,
    contact   text        NOT NULL,
    urgent    boolean     NOT NULL,
    at        timestamptz NOT NULL
);
CREATE INDEX outbound_elsewhere_contact ON outbound_elsewhere (contact, at);
