-- A row's image that `->` can read: it refuses the whole for a NUL or half a surrogate anywhere in it.
-- Those escapes are left out; every other one stays. Only the relay calls it, a million times for a million
-- rows: a search_path of its own would cost it more than all the rest.
CREATE FUNCTION notifier.readable(image json) RETURNS json
LANGUAGE plpgsql IMMUTABLE STRICT
AS $$
BEGIN
    -- Nearly always: no such escape, and too short for brackets that exhaust a stack.
    IF octet_length(image::text) <= 1000 AND strpos(image::text, '\u') = 0 THEN
        RETURN image;
    END IF;
    BEGIN
        IF image::text ~* '\\u(0000|d[89a-f])' THEN
            image := regexp_replace(image::text, '(\\[^u])|\\u(?:0000|d[89a-f]..)', '\1', 'gi')::json;
        END IF;
        PERFORM image -> '';
        RETURN image;
    EXCEPTION WHEN statement_too_complex THEN  -- brackets in brackets beyond max_stack_depth
        RETURN NULL;
    END;
END
$$;
