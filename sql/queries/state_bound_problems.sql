-- What the check constraint of notifier.state_bound has that a `state_where` may not have. The tree of its expression
-- names every function, operator and type by its oid, also those that PostgreSQL has added.
WITH tree (text) AS (
    SELECT c.conbin::pg_catalog.text FROM pg_catalog.pg_constraint AS c
    WHERE c.conrelid = 'notifier.state_bound'::pg_catalog.regclass AND c.contype = 'c'
),
called (oid) AS (
    SELECT found[1]::pg_catalog.oid
    FROM tree, pg_catalog.regexp_matches(tree.text, ':\w*funcid (\d+)', 'g') AS found
    UNION
    SELECT o.oprcode
    FROM tree, pg_catalog.regexp_matches(tree.text, ':opno (\d+)', 'g') AS found
    JOIN pg_catalog.pg_operator AS o ON o.oid = found[1]::pg_catalog.oid
)
SELECT pg_catalog.format('%s is not one of PostgreSQL''s own functions', p.oid::pg_catalog.regprocedure) AS problem
FROM called JOIN pg_catalog.pg_proc AS p ON p.oid = called.oid
WHERE p.oid >= :first_user_oid
UNION ALL
SELECT pg_catalog.format('%s is volatile', p.oid::pg_catalog.regprocedure)
FROM called JOIN pg_catalog.pg_proc AS p ON p.oid = called.oid
WHERE p.provolatile = 'v'
UNION ALL
SELECT pg_catalog.format('%s reads tables', p.oid::pg_catalog.regprocedure)
FROM called JOIN pg_catalog.pg_proc AS p ON p.oid = called.oid
WHERE p.proname ~ '_to_xml'
UNION ALL
SELECT pg_catalog.format('%s is not one of PostgreSQL''s own types', t.oid::pg_catalog.regtype)
FROM tree, pg_catalog.regexp_matches(tree.text, ':\w*type\w* (\d+)', 'g') AS found
JOIN pg_catalog.pg_type AS t ON t.oid = found[1]::pg_catalog.oid
WHERE notifier.bounding_type(t.oid) IS DISTINCT FROM t.oid
