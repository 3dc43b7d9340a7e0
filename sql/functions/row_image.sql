-- A row of a relation that is not plain as JSON. Null for no row. `statements`: those of `row_statements`.
CREATE OR REPLACE FUNCTION notifier.row_image(row_value record, relation oid, statements json) RETURNS json
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET array_nulls = on
AS $$
DECLARE
    image json;
BEGIN
    IF num_nulls(row_value) > 0 THEN
        RETURN NULL;
    END IF;
    EXECUTE coalesce(statements ->> relation::text, notifier.row_statement(relation, NULL)) INTO image USING row_value;
    RETURN image;
END
$$;
