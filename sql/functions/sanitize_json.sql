-- A row's image in which `->` has found, or may find, what it refuses: escapes of NUL and of halves of a surrogate, and in a
-- database that is not in UTF-8 of all characters beyond ASCII, are left out. Null where its brackets in brackets are beyond
-- max_stack_depth, or where it has more than 100,000 escapes.
--
-- A regular expression takes microseconds for each match, and a text may have a million backslashes: pairs of these are put aside as
-- a character that JSON cannot have.
CREATE OR REPLACE FUNCTION notifier.sanitize_json(image json) RETURNS json
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    escaped text;
BEGIN
    IF strpos(image::text, E'\\u') > 0 THEN
        escaped := replace(image::text, E'\\\\', E'\x01');
        IF length(escaped) - length(replace(escaped, E'\\u', '')) > 200000 THEN
            RETURN NULL;
        END IF;
        escaped := regexp_replace(escaped, CASE WHEN getdatabaseencoding() = 'UTF8' THEN E'\\\\u(?:0000|d[89a-f]..)'
                                                ELSE E'\\\\u(?:0000|(?!00[0-7])....)' END, '', 'gi');
        image := replace(escaped, E'\x01', E'\\\\')::json;
    END IF;
    PERFORM image -> '';
    RETURN image;
EXCEPTION WHEN statement_too_complex THEN
    RETURN NULL;
END
$$;
