-- Of a row that cannot be serialised: its key and its company. Null for no row.
CREATE OR REPLACE FUNCTION notifier.keys(row_image record, key text, company text) RETURNS json
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    keys json;
BEGIN
    IF row_image IS NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE format('SELECT json_build_object(%L, ($1).%I, %L, ($1).%I)', key, key, company, company)
    INTO keys USING row_image;
    RETURN keys;
END
$$;
