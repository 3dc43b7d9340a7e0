-- The roles that own tables of which nodes read rows: those with `member`, all watched ones where a role may read
-- states, and those along their paths.
SELECT DISTINCT r.rolname::text AS owner
FROM notifier.watches AS w
LEFT JOIN notifier.steps AS s ON s.watch = w.entity
CROSS JOIN LATERAL (VALUES (w.relation), (s.relation)) AS read (relation)
JOIN pg_catalog.pg_class AS c ON c.oid = notifier.relation_of(read.relation)
JOIN pg_catalog.pg_roles AS r ON r.oid = c.relowner
WHERE w.member IS NOT NULL OR EXISTS (SELECT FROM notifier.grants AS g WHERE g.privilege = 'state')
ORDER BY owner
