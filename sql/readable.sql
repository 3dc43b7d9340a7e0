-- A row's image that `->` can read: it refuses the whole for a NUL or half a surrogate anywhere in it.
-- Those escapes are left out; every other one stays.
CREATE FUNCTION notifier.readable(image json) RETURNS json
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN image::text ~* '\\u(0000|d[89a-f])'
        THEN regexp_replace(image::text, '(\\[^u])|\\u(?:0000|d[89a-f]..)', '\1', 'gi')::json
        ELSE image
    END
$$;
