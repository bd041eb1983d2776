-- How somebody answered so far, for the chance of a yes; and questions asked beyond what is wanted, because not all say yes.
ALTER TABLE responder
    ADD COLUMN said_yes integer NOT NULL DEFAULT 0,
    ADD COLUMN said_no  integer NOT NULL DEFAULT 0;  -- or nothing, until the offer ended
ALTER TABLE offer ADD COLUMN extra boolean NOT NULL DEFAULT false;
-- For the cap of questions to one person in a day.
CREATE INDEX offer_made ON offer (made_at) WHERE responder_id IS NOT NULL;
