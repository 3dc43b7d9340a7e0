-- The statements that make JSON of the rows of these relations, by their OIDs; not of the plain ones.
-- IMMUTABLE for the same reason as `plain_relations`.
CREATE OR REPLACE FUNCTION notifier.row_statements(relations regclass[]) RETURNS json
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT json_object_agg(r.oid::oid, notifier.row_statement(r.oid, NULL))
    FROM unnest(relations) AS r (oid)
    JOIN pg_class AS c ON c.oid = r.oid AND c.relkind IN ('r', 'p')
    WHERE r.oid::oid <> ALL (notifier.plain_relations(relations))
$$;
