-- The statements that drop our objects: views, then functions, then the tables $1 with what belongs to them,
-- then the sequence $2. Views and functions have a comment that begins with $3; the first release's have none,
-- and its functions the names $4. All objects of a kind go in one statement, because some use others.
SELECT statement FROM (
    SELECT 1 AS n, 'DROP VIEW ' || pg_catalog.string_agg(c.oid::regclass::text, ', ') AS statement
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = 'notifier'::regnamespace AND c.relkind = 'v'
      AND (c.relname = 'changes' OR pg_catalog.starts_with(pg_catalog.obj_description(c.oid, 'pg_class'), $3::text))
    HAVING pg_catalog.count(*) > 0
    UNION ALL
    SELECT 2 AS n, 'DROP FUNCTION ' || pg_catalog.string_agg(p.oid::regprocedure::text, ', ')
    FROM pg_catalog.pg_proc AS p
    WHERE p.pronamespace = 'notifier'::regnamespace
      AND CASE WHEN pg_catalog.to_regclass('notifier.grants') IS NULL THEN p.proname = ANY ($4::text[])
               ELSE pg_catalog.obj_description(p.oid, 'pg_proc') = $3::text END
    HAVING pg_catalog.count(*) > 0
    UNION ALL
    SELECT 3 AS n, 'DROP TABLE ' || pg_catalog.string_agg(c.oid::regclass::text, ', ')
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = 'notifier'::regnamespace AND c.relname = ANY ($1::text[]) AND c.relkind IN ('r', 'p')
    HAVING pg_catalog.count(*) > 0
    UNION ALL
    SELECT 4 AS n, 'DROP MATERIALIZED VIEW ' || pg_catalog.string_agg(c.oid::regclass::text, ', ')
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = 'notifier'::regnamespace AND c.relname = ANY ($1::text[]) AND c.relkind = 'm'
    HAVING pg_catalog.count(*) > 0
    UNION ALL
    SELECT 5 AS n, 'DROP SEQUENCE ' || c.oid::regclass
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = 'notifier'::regnamespace AND c.relname = $2::text AND c.relkind = 'S'
) AS dropped
ORDER BY n
