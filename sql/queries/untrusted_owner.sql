-- The first role that could have put objects into the schema `notifier`, and the first of the tables $1 on which it may not
-- create triggers: the owner of the table `version`, and where there is none yet, the owner of the schema and the roles with
-- CREATE on it ('PUBLIC': all). Then a table is not needed. No row where there is no such role, or it is the current role
-- or one that this, without being a superuser, is a member of. `owns`: false for a right alone. It reads the catalogue alone.
WITH version AS (
    SELECT v.oid, v.relowner FROM pg_catalog.pg_class AS v
    WHERE v.oid = pg_catalog.to_regclass('notifier.version') AND v.relkind = 'r'
), present (owner, owns) AS (
    SELECT relowner, true FROM version
    UNION ALL
    SELECT n.nspowner, true FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'notifier' AND NOT EXISTS (SELECT FROM version)
    UNION ALL
    SELECT a.grantee, false FROM pg_catalog.pg_namespace AS n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) AS a
    WHERE n.nspname = 'notifier' AND a.privilege_type = 'CREATE' AND NOT EXISTS (SELECT FROM version)
      AND n.xmin <> pg_catalog.pg_current_xact_id()::xid  -- not what default privileges give with a schema that no other session sees yet
)
SELECT coalesce(r.rolname::text, 'PUBLIC') AS owner, present.owns, given.name AS relation
FROM present
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = present.owner
JOIN pg_catalog.pg_roles AS us ON us.rolname = current_user
LEFT JOIN (
    SELECT relation.name, relation.n, c.oid
    FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS relation (name, n)
    LEFT JOIN pg_catalog.pg_namespace AS s ON s.nspname = (pg_catalog.parse_ident(relation.name))[1]
    LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = s.oid AND c.relname = (pg_catalog.parse_ident(relation.name))[2]
) AS given ON true
WHERE present.owner <> us.oid AND r.rolsuper IS NOT TRUE
  AND (r.oid IS NULL OR us.rolsuper OR NOT pg_catalog.pg_has_role(r.oid, 'USAGE'))
  AND CASE WHEN given.name IS NULL THEN NOT EXISTS (SELECT FROM version)
           WHEN r.oid IS NULL THEN true
           ELSE NOT pg_catalog.has_table_privilege(r.oid, given.oid, 'TRIGGER') END
ORDER BY present.owns DESC, owner, given.n
LIMIT 1
