-- The reference for W0: the smallest trigger that stores both images of a row.
CREATE TABLE audit (id bigint GENERATED ALWAYS AS IDENTITY, old json, new json);
CREATE FUNCTION audit_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (old, new) VALUES (row_to_json(OLD), row_to_json(NEW));
    RETURN NULL;
END
$$;
CREATE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION audit_row();
