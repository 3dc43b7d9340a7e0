-- A query that reads what the default membership query reads, and no row of it; null where no table has members.
SELECT pg_catalog.format('SELECT %I, %I FROM %s LIMIT 0', w.company, w.member, w.relation)
FROM notifier.watches AS w
WHERE w.member IS NOT NULL AND pg_catalog.to_regclass(w.relation) IS NOT NULL
ORDER BY w.entity <> 'Employee'
LIMIT 1
