-- What is promised: needs with their ledger, who and what could serve them, offers, assignments.
-- The guarantees stand here, in constraints; the code above them only gives kinder answers.

-- Exclusion constraints on uuid with =; the extension is trusted, so the owner of the database may create it.
CREATE EXTENSION IF NOT EXISTS btree_gist WITH SCHEMA public;

CREATE TABLE operation (
    operation  text        PRIMARY KEY,
    title      text        NOT NULL,
    timezone   text        NOT NULL,
    exercise   boolean     NOT NULL,
    closed_at  timestamptz
);

CREATE TABLE need (
    need_id       uuid        PRIMARY KEY,
    operation     text,
    exercise      boolean     NOT NULL,
    incident_id   uuid,
    item          text,
    skill         text,
    unit          text        NOT NULL,
    severity      smallint    NOT NULL CHECK (severity BETWEEN 1 AND 4),
    status        text        NOT NULL CHECK (status IN ('draft', 'declared', 'withdrawn')),
    lon           double precision,
    lat           double precision,
    place         text,
    admin         text,
    window_start  timestamptz NOT NULL,
    window_end    timestamptz NOT NULL,
    level         smallint    NOT NULL DEFAULT 0,
    certificates  text[]      NOT NULL DEFAULT '{}',
    languages     text[]      NOT NULL DEFAULT '{}',
    bundle_id     uuid,
    declared_at   timestamptz,
    -- What intake says is wanted. `needed` stays above it while more than that is promised.
    wanted        integer     NOT NULL CHECK (wanted >= 0),
    -- Said to have arrived before whoever brought it said so; becomes confirmed with its delivery.
    ahead         integer     NOT NULL DEFAULT 0 CHECK (ahead >= 0),
    -- The ledger. `asked` is what stands in open offers and is outside the balance.
    needed        integer     NOT NULL DEFAULT 0 CHECK (needed >= 0),
    open          integer     NOT NULL DEFAULT 0 CHECK (open >= 0),
    offered       integer     NOT NULL DEFAULT 0 CHECK (offered >= 0),
    committed     integer     NOT NULL DEFAULT 0 CHECK (committed >= 0),
    in_transit    integer     NOT NULL DEFAULT 0 CHECK (in_transit >= 0),
    delivered     integer     NOT NULL DEFAULT 0 CHECK (delivered >= 0),
    confirmed     integer     NOT NULL DEFAULT 0 CHECK (confirmed >= 0),
    cancelled     integer     NOT NULL DEFAULT 0 CHECK (cancelled >= 0),
    asked         bigint      NOT NULL DEFAULT 0 CHECK (asked >= 0),
    -- Counts every change, so that a plan made from an older state shows.
    version       bigint      NOT NULL DEFAULT 1,
    CONSTRAINT need_one_word CHECK ((item IS NULL) <> (skill IS NULL)),
    CONSTRAINT need_window CHECK (window_start < window_end),
    CONSTRAINT need_position CHECK ((lon IS NULL) = (lat IS NULL)),
    CONSTRAINT need_balance CHECK (
        needed = open + offered + committed + in_transit + delivered + confirmed + cancelled),
    CONSTRAINT need_offered_is_asked CHECK (offered = least(asked, open::bigint + offered))
) WITH (fillfactor = 80);
CREATE INDEX need_to_plan ON need (exercise, need_id) WHERE status = 'declared' AND open + offered > 0;
CREATE INDEX need_operation ON need (operation, need_id);

CREATE TABLE responder (
    responder_id     uuid        PRIMARY KEY,
    exercise         boolean     NOT NULL,
    kind             text        NOT NULL CHECK (kind IN ('person', 'team')),
    status           text        NOT NULL CHECK (status IN ('unconfirmed', 'confirmed', 'withdrawn')),
    organisation     text,
    skills           jsonb       NOT NULL,  -- skill -> level
    certificates     jsonb       NOT NULL,  -- code -> valid until, null: without end
    languages        text[]      NOT NULL,
    lon              double precision,      -- centre of the home cell (H3 resolution 8)
    lat              double precision,
    travel_limit_km  double precision NOT NULL,
    capacity         integer     NOT NULL CHECK (capacity >= 1),
    minimum_team     integer     NOT NULL CHECK (minimum_team >= 1),
    availability     jsonb       NOT NULL   -- [[from, to], ...]; empty: always
) WITH (fillfactor = 90);

-- Stock, once for life and once for drills: a drill may promise what is really there, but takes nothing of it from life.
-- `given`: what left the shelf since the holder last said how much is there (`counted_at`).
CREATE TABLE lot (
    lot_id             uuid        NOT NULL,
    exercise           boolean     NOT NULL,
    kind               text        NOT NULL,
    item               text        NOT NULL,
    unit               text        NOT NULL,
    lon                double precision,
    lat                double precision,
    organisation       text,
    delivery_limit_km  double precision NOT NULL,
    expires_at         timestamptz,
    status             text        NOT NULL CHECK (status IN ('available', 'withdrawn')),
    quantity           integer     NOT NULL CHECK (quantity >= 0),
    reserved           integer     NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    given              integer     NOT NULL DEFAULT 0 CHECK (given >= 0),
    counted_at         timestamptz NOT NULL,
    PRIMARY KEY (lot_id, exercise),
    CONSTRAINT lot_not_beyond CHECK (reserved::bigint + given <= quantity)
) WITH (fillfactor = 80);

CREATE TABLE offer (
    offer_id      uuid        PRIMARY KEY,
    need_id       uuid        NOT NULL REFERENCES need,
    operation     text,
    exercise      boolean     NOT NULL,
    responder_id  uuid        REFERENCES responder,
    lot_id        uuid,
    organisation  text,
    quantity      integer     NOT NULL CHECK (quantity > 0),
    state         text        NOT NULL CHECK (state IN ('made', 'accepted', 'declined', 'expired', 'withdrawn')),
    window_start  timestamptz NOT NULL,
    window_end    timestamptz NOT NULL,
    period        tstzrange   NOT NULL,     -- for which a yes takes a person up
    made_at       timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    distance_km   double precision,
    cost          integer,
    parts         jsonb,                    -- the planner's reasons: cost by part
    arrives_at    timestamptz,
    by            text        NOT NULL,
    reason        text,
    FOREIGN KEY (lot_id, exercise) REFERENCES lot,
    CONSTRAINT offer_to_one CHECK ((responder_id IS NULL) <> (lot_id IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX offer_need ON offer (need_id, offer_id);
CREATE INDEX offer_responder ON offer (responder_id, offer_id) WHERE responder_id IS NOT NULL;
CREATE INDEX offer_lot ON offer (lot_id, offer_id) WHERE lot_id IS NOT NULL;
CREATE INDEX offer_expiry ON offer (expires_at) WHERE state = 'made';
-- One question at a time about one need to one person; a lot may be asked again for more.
CREATE UNIQUE INDEX offer_asked_once ON offer (need_id, responder_id) WHERE state = 'made' AND responder_id IS NOT NULL;

CREATE TABLE assignment (
    assignment_id  uuid        PRIMARY KEY REFERENCES offer,
    need_id        uuid        NOT NULL REFERENCES need,
    operation      text,
    exercise       boolean     NOT NULL,
    responder_id   uuid        REFERENCES responder,
    lot_id         uuid,
    organisation   text,
    quantity       integer     NOT NULL CHECK (quantity > 0),
    confirmed      integer     NOT NULL DEFAULT 0,
    state          text        NOT NULL
                   CHECK (state IN ('made', 'started', 'arrived', 'delivered', 'confirmed', 'abandoned')),
    period         tstzrange   NOT NULL CHECK (NOT isempty(period)),
    made_at        timestamptz NOT NULL,
    started_at     timestamptz,
    delivered_at   timestamptz,
    by             text        NOT NULL,
    reason         text,
    FOREIGN KEY (lot_id, exercise) REFERENCES lot,
    CONSTRAINT assignment_of_one CHECK ((responder_id IS NULL) <> (lot_id IS NULL)),
    CONSTRAINT assignment_confirmed CHECK (confirmed BETWEEN 0 AND quantity
                                           AND (state <> 'confirmed' OR confirmed = quantity)),
    -- Nobody is in two places, over all operations; a drill binds nobody in life.
    CONSTRAINT nobody_twice EXCLUDE USING gist (responder_id WITH =, (exercise::integer) WITH =, period WITH &&)
        WHERE (responder_id IS NOT NULL AND state IN ('made', 'started', 'arrived'))
) WITH (fillfactor = 80);
CREATE INDEX assignment_need ON assignment (need_id, assignment_id);
CREATE INDEX assignment_responder ON assignment (responder_id, assignment_id) WHERE responder_id IS NOT NULL;
CREATE INDEX assignment_lot ON assignment (lot_id, assignment_id) WHERE lot_id IS NOT NULL;

-- Who is not asked again about a need for a while: they said no, did not answer, or gave it up.
CREATE TABLE refusal (
    need_id    uuid        NOT NULL REFERENCES need,
    source_id  uuid        NOT NULL,        -- responder or lot
    cause      text        NOT NULL CHECK (cause IN ('declined', 'expired', 'abandoned')),
    until      timestamptz NOT NULL,
    PRIMARY KEY (need_id, source_id)
);

-- What changed since the last plan. Only ever added to by writers, so that none waits for another; the planner
-- takes away exactly the rows that it saw.
CREATE TABLE change (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    exercise  boolean NOT NULL
);

-- The last plan of life and of drills, and what it could not meet, with the counts left filter by filter.
CREATE TABLE plan (
    exercise     boolean     PRIMARY KEY,
    planned_at   timestamptz NOT NULL,
    needs        integer     NOT NULL,
    units        bigint      NOT NULL,
    met          bigint      NOT NULL,
    objective    numeric     NOT NULL,
    bound        numeric     NOT NULL,
    gap          numeric     NOT NULL,
    moved_units  bigint      NOT NULL,
    method       text        NOT NULL,
    seconds      double precision NOT NULL
);

CREATE TABLE unmet (
    need_id   uuid    PRIMARY KEY REFERENCES need,
    exercise  boolean NOT NULL,
    units     bigint  NOT NULL,
    filters   jsonb,                        -- [[rule, how many were left], ...] in order; null: not looked into
    shadow    numeric,
    planned_at timestamptz NOT NULL
);
CREATE INDEX unmet_exercise ON unmet (exercise);
