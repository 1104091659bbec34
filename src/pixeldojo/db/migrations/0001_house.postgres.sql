CREATE FUNCTION entries_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only';
END $$;
CREATE TRIGGER entries_never_change BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION entries_append_only();

-- Ids are compared byte by byte on both engines, whatever the database's language.
ALTER TABLE jobs ALTER COLUMN id TYPE TEXT COLLATE "C";
ALTER TABLE entries ALTER COLUMN id TYPE TEXT COLLATE "C";
ALTER TABLE keys ALTER COLUMN id TYPE TEXT COLLATE "C";
ALTER TABLE accounts ALTER COLUMN id TYPE TEXT COLLATE "C";
ALTER TABLE jobs ALTER COLUMN account_id TYPE TEXT COLLATE "C";
ALTER TABLE job_metadata ALTER COLUMN job_id TYPE TEXT COLLATE "C";
ALTER TABLE deliveries ALTER COLUMN id TYPE TEXT COLLATE "C";
ALTER TABLE deliveries ALTER COLUMN line TYPE TEXT COLLATE "C";
