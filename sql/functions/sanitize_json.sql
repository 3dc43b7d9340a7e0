-- A row's image in which `->` has found, or may find, what it refuses: escapes of NUL and of halves of a
-- surrogate are left out. Null where its brackets in brackets are beyond max_stack_depth.
CREATE OR REPLACE FUNCTION notifier.sanitize_json(image json) RETURNS json
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF image::text ~* '\\u(0000|d[89a-f])' THEN
        image := regexp_replace(image::text, '(\\[^u])|\\u(?:0000|d[89a-f]..)', '\1', 'gi')::json;
    END IF;
    PERFORM image -> '';
    RETURN image;
EXCEPTION WHEN statement_too_complex THEN
    RETURN NULL;
END
$$;
