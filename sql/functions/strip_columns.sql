-- A row's image without the excluded columns: they are never stored. Fails where one of them is not in it: it
-- was renamed or dropped, and under another name it would be stored.
CREATE OR REPLACE FUNCTION notifier.strip_columns(image json, excluded text[]) RETURNS json
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kept json;
    found_columns text[];
BEGIN
    SELECT json_object_agg(pair.key, pair.value) FILTER (WHERE pair.key <> ALL (excluded)), array_agg(pair.key)
    INTO kept, found_columns
    FROM json_each(image) AS pair;
    IF NOT excluded <@ found_columns THEN
        RAISE undefined_column;
    END IF;
    RETURN kept;
END
$$;
