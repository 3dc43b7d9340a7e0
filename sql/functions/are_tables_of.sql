-- Whether all of these relations are ordinary tables of one role.
--
-- IMMUTABLE, so that the planner calls it once for each plan: like `plain_relations`, and for the same reason.
CREATE OR REPLACE FUNCTION notifier.are_tables_of(role text, relations regclass[]) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(bool_and(c.relkind = 'r' AND pg_get_userbyid(c.relowner) = role), false)
    FROM unnest(relations) AS r (oid) LEFT JOIN pg_class AS c ON c.oid = r.oid
$$;
