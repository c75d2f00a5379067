-- What a level is the level of (an order's line, a SKU): only a newer level of the same thing takes the place of a parked one.
ALTER TABLE runtime.dead_letter ADD COLUMN level text;

-- A record without a readable id is known by its place in the log: asked once per bad record, however many there are.
CREATE INDEX ON runtime.dead_letter (topic, partition, "offset");
