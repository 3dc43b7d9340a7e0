-- The columns of `exclude` and `visible_to` that were renamed since `migrate`: `name` in the watch, `now` in the
-- table. One that was dropped is among them, without `now`, if another has its name.
CREATE OR REPLACE FUNCTION notifier.renamed_columns() RETURNS TABLE(relation oid, name text, now text, excluded boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT h.relation, h.name, CASE WHEN NOT a.attisdropped THEN a.attname::text END, h.excluded
    FROM notifier.hidden_columns AS h
    JOIN pg_attribute AS a ON a.attrelid = h.relation AND a.attnum = h.number
    WHERE a.attname <> h.name AND (NOT a.attisdropped OR EXISTS (
        SELECT FROM pg_attribute AS other
        WHERE other.attrelid = h.relation AND other.attname = h.name AND NOT other.attisdropped))
$$;
