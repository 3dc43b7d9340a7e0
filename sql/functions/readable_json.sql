-- A row's image that `->` can read: that operator rejects the whole value if it holds a NUL or half a
-- surrogate anywhere. Nearly always there is no such escape, and too little text for nesting that could
-- exhaust the stack. It is called for each of a million rows, so it must be inlined into its query: that
-- rules out SET, so every name in it is qualified by its schema.
CREATE OR REPLACE FUNCTION notifier.readable_json(image json) RETURNS json
LANGUAGE sql IMMUTABLE
AS $$
    SELECT CASE
        WHEN pg_catalog.octet_length(image::pg_catalog.text) OPERATOR(pg_catalog.<=) 1000
            AND pg_catalog.strpos(image::pg_catalog.text, E'\\u') OPERATOR(pg_catalog.=) 0 THEN image
        ELSE notifier.sanitize_json(image)
    END
$$;
