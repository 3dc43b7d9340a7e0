-- A row's image that `->` can read: it refuses the whole for a NUL or half a surrogate anywhere in it.
-- Nearly always there is no such escape, and too little text for brackets that exhaust a stack. A million
-- rows ask: so it is read where it is made, whatever the search_path is then, and put in place of its call.
CREATE OR REPLACE FUNCTION notifier.readable_json(image json) RETURNS json
LANGUAGE sql IMMUTABLE
RETURN CASE WHEN octet_length(image::text) <= 1000 AND strpos(image::text, '\u') = 0 THEN image
            ELSE notifier.sanitize_json(image) END;
