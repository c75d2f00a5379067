CREATE TABLE account (
    name text PRIMARY KEY,
    units int NOT NULL DEFAULT 0,
    reminded boolean NOT NULL DEFAULT false,
    told jsonb NOT NULL DEFAULT '[]',
    heard jsonb NOT NULL DEFAULT '[]'
);
