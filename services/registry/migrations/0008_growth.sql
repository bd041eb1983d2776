-- Confirmed work, by which skills grow, and who vouched for whom.

CREATE TABLE work (
    assignment_id uuid        PRIMARY KEY,
    responder_id  uuid        NOT NULL,
    skill         text        NOT NULL,
    operation     text,
    started_at    timestamptz NOT NULL,
    ended_at      timestamptz NOT NULL
);
CREATE INDEX work_responder ON work (responder_id, skill, ended_at DESC);

CREATE TABLE vouch (
    leader       uuid        NOT NULL REFERENCES responder,
    responder_id uuid        NOT NULL REFERENCES responder,
    skill        text        NOT NULL,
    at           timestamptz NOT NULL,
    reason       text,
    PRIMARY KEY (leader, responder_id, skill)
);
CREATE INDEX vouch_leader ON vouch (leader, at);
