-- Objects of ours that belong to another role than the table `version`, and that role's statement to take them over. Not
-- `path_company`, which belongs to the owner of the tables along paths. Ours are the tables and the sequence $1, and
-- what has a comment that begins with $2. `owner` and `wanted` as they are in the catalogue.
WITH version AS (
    SELECT c.relowner, c.relnamespace FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass('notifier.version')
)
SELECT kind, name, pg_catalog.pg_get_userbyid(owner)::text AS owner, pg_catalog.pg_get_userbyid(version.relowner)::text AS wanted,
       pg_catalog.format('ALTER %s %s OWNER TO %I', kind, name, pg_catalog.pg_get_userbyid(version.relowner)) AS statement
FROM version
CROSS JOIN LATERAL (
    SELECT 1 AS n, 'SCHEMA' AS kind, pg_catalog.quote_ident(s.nspname) AS name, s.nspowner AS owner
    FROM pg_catalog.pg_namespace AS s WHERE s.oid = version.relnamespace
    UNION ALL
    SELECT 2, CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
           pg_catalog.format('notifier.%I', c.relname), c.relowner
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = version.relnamespace
      AND (c.relname = ANY ($1::text[]) AND c.relkind IN ('r', 'p', 'm', 'S')
           OR c.relkind = 'v' AND pg_catalog.starts_with(pg_catalog.obj_description(c.oid, 'pg_class'), $2::text))
    UNION ALL
    SELECT 3, 'FUNCTION', p.oid::regprocedure::text, p.proowner
    FROM pg_catalog.pg_proc AS p
    WHERE p.pronamespace = version.relnamespace AND p.proname <> 'path_company'
      AND pg_catalog.obj_description(p.oid, 'pg_proc') = $2::text
) AS found
WHERE owner <> version.relowner
ORDER BY n, name
