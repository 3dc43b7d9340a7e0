-- A row's image in which `->` may find what it refuses. Where it does, escapes of NUL and of halves of a surrogate, and in a
-- database that is not in UTF-8 of all characters beyond ASCII, are left out. Null where its brackets in brackets are beyond
-- max_stack_depth: who calls it must take that for an image of which nothing is known, not for none.
--
-- A text may have some hundred thousand escapes, and a million backslashes: pairs of these are put aside as a character that
-- JSON cannot have, and the text is split at the escapes, which takes less than half the time of a regular expression.
CREATE OR REPLACE FUNCTION notifier.sanitize_json(image json) RETURNS json
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    is_utf8 CONSTANT boolean := getdatabaseencoding() = 'UTF8';
    escaped text;
BEGIN
    BEGIN
        PERFORM image -> '';
        RETURN image;
    EXCEPTION WHEN statement_too_complex THEN
        RETURN NULL;
    WHEN OTHERS THEN  -- which error it is depends on PostgreSQL's version and the encoding
        NULL;
    END;
    BEGIN
        -- Each part begins with the four digits of an escape, the first one with what counts as NUL.
        escaped := '0000' || replace(image::text, E'\\\\', E'\x01');
        SELECT string_agg(CASE WHEN left(part, 4) = '0000'
                                   OR CASE WHEN is_utf8 THEN lower(left(part, 2) COLLATE "C") BETWEEN 'd8' AND 'df'
                                           ELSE left(part, 3) COLLATE "C" NOT BETWEEN '000' AND '007' END
                               THEN substr(part, 5) ELSE E'\\u' || part END, '')
        INTO escaped
        FROM (SELECT unnest(string_to_array(escaped, E'\\u')) AS part) AS parts;
        image := replace(escaped, E'\x01', E'\\\\')::json;
        PERFORM image -> '';
        RETURN image;
    EXCEPTION WHEN statement_too_complex THEN
        RETURN NULL;
    END;
END
$$;
