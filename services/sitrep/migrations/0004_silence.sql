-- Areas under a warning from which too little was heard: each is told of once for each warning.
CREATE TABLE silence (
    warning_id uuid        NOT NULL,
    area       text        NOT NULL,
    noticed_at timestamptz NOT NULL,
    PRIMARY KEY (warning_id, area)
);
