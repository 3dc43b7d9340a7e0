-- Of a row that is not stored whole: its key and its company. Null for no row. Fails where a column is gone.
CREATE OR REPLACE FUNCTION notifier.keys(row_value record, relation oid, columns text[]) RETURNS json
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET array_nulls = on
AS $$
DECLARE
    image json;
BEGIN
    IF num_nulls(row_value) > 0 THEN
        RETURN NULL;
    END IF;
    EXECUTE notifier.row_statement(relation, columns) INTO image USING row_value;
    RETURN image;
END
$$;
