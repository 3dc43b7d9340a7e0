-- The columns of `exclude` and `visible_to` that were renamed since `migrate`: `name` in the watch, `now` in the table. A
-- column that was dropped is none.
CREATE OR REPLACE FUNCTION notifier.renamed_columns() RETURNS TABLE(relation oid, name text, now text, excluded boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT h.relation, h.name, a.attname::text, h.excluded
    FROM notifier.hidden_columns AS h
    JOIN pg_attribute AS a ON a.attrelid = h.relation AND a.attnum = h.number
    WHERE NOT a.attisdropped AND a.attname <> h.name
$$;
