-- A row's image that `->` can read: it refuses the whole for a NUL or half a surrogate anywhere in it.
-- Those escapes are left out; every other one stays.
CREATE FUNCTION notifier.readable(image json) RETURNS json
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF image::text ~* '\\u(0000|d[89a-f])' THEN
        image := regexp_replace(image::text, '(\\[^u])|\\u(?:0000|d[89a-f]..)', '\1', 'gi')::json;
    END IF;
    PERFORM image -> '';
    RETURN image;
EXCEPTION WHEN statement_too_complex THEN  -- brackets in brackets beyond max_stack_depth
    RETURN NULL;
END
$$;
