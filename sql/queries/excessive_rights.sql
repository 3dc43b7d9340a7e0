-- Rights to read the texts of the log in any transaction, and to set its sequence, of roles that may serve, in the words
-- of REVOKE: former versions granted them, and nodes of these need them. `role`: quoted.
SELECT pg_catalog.format('%s ON %s%s', a.privilege_type, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE '' END, c.oid::regclass) AS privilege,
       pg_catalog.quote_ident(r.rolname) AS role
FROM pg_catalog.pg_class AS c
CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS a
JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
WHERE (a.privilege_type = 'SELECT' AND c.oid IN ('notifier.changes_0'::regclass, 'notifier.changes_1'::regclass, 'notifier.signing_key'::regclass)
       OR a.privilege_type = 'SELECT' AND c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree('notifier.messages'))
       OR a.privilege_type IN ('UPDATE', 'USAGE') AND c.oid = 'notifier.change_ids'::regclass)
  AND a.grantee <> c.relowner
  AND r.rolname IN (SELECT g.role FROM notifier.grants AS g WHERE g.privilege = $1)
  AND r.rolname = coalesce($2, r.rolname)
ORDER BY role, privilege
