-- Rights on the schema `notifier` and on what is in it, of roles that are neither the schema's owner nor allowed
-- to serve: a database's default privileges give them with each new object. `privilege` in the words of GRANT
-- and REVOKE, `role` quoted.
-- The owner of a function, to whom `migrate` may have given it, keeps it.
WITH held (object, acl, owner) AS (
    SELECT 'SCHEMA notifier', n.nspacl, n.nspowner FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'notifier'
    UNION ALL
    SELECT pg_catalog.format('%s notifier.%I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.relname), c.relacl, c.relowner
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = pg_catalog.to_regnamespace('notifier') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT pg_catalog.format('FUNCTION %s', p.oid::regprocedure),
           coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), p.proowner
    FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('notifier')
), columns (object, acl, name) AS (
    SELECT pg_catalog.format('TABLE notifier.%I', c.relname), a.attacl, a.attname
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
    WHERE c.relnamespace = pg_catalog.to_regnamespace('notifier') AND a.attacl IS NOT NULL
)
SELECT pg_catalog.string_agg(DISTINCT privilege, ', ' ORDER BY privilege) || ' ON ' || object AS privilege, role
FROM (
    SELECT object, a.grantee, a.privilege_type AS privilege FROM held, pg_catalog.aclexplode(acl) AS a
    WHERE a.grantee <> held.owner
    UNION ALL
    SELECT object, a.grantee, pg_catalog.format('%s (%I)', a.privilege_type, name) FROM columns, pg_catalog.aclexplode(acl) AS a
) AS rights
CROSS JOIN LATERAL (
    SELECT CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(grantee)) END
) AS named (role)
WHERE grantee <> (SELECT n.nspowner FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'notifier')
  AND (grantee = 0 OR pg_catalog.pg_get_userbyid(grantee) <> ALL (
      SELECT g.role FROM notifier.grants AS g WHERE g.privilege = $1
  ))
GROUP BY object, role
ORDER BY object, role
