-- Whether all of these relations are ordinary tables of one role, to which `path_company` belongs too: it reads them with that
-- role's rights. A superuser who takes the objects of a role over, and gives the tables back, becomes the function's owner.
--
-- IMMUTABLE, so that the planner calls it once for each plan: like `plain_relations`, and for the same reason.
CREATE OR REPLACE FUNCTION notifier.are_tables_of(role text, relations regclass[]) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(bool_and(c.relkind = 'r' AND pg_get_userbyid(c.relowner) = role AND c.relowner = p.proowner), false)
    FROM unnest(relations) AS r (oid) LEFT JOIN pg_class AS c ON c.oid = r.oid
    LEFT JOIN pg_proc AS p ON p.oid = to_regprocedure('notifier.path_company(text, integer, text)')
$$;
