-- A row's image without the excluded columns: they are never stored.
CREATE OR REPLACE FUNCTION notifier.strip_columns(image json, excluded text[]) RETURNS json
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
    SELECT json_object_agg(pair.key, pair.value)
    FROM json_each(image) AS pair
    WHERE pair.key <> ALL (excluded)
$$;
