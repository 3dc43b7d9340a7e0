-- The usual approach, and the reference for L1, F2 and W2: the row itself in a NOTIFY.
CREATE FUNCTION notify_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('rows', row_to_json(NEW)::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER notify_row AFTER INSERT OR UPDATE ON events FOR EACH ROW EXECUTE FUNCTION notify_row();
