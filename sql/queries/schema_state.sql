-- Of the schema `notifier`: whether it is there, has Alembic's table and our log, and whether it holds anything.
SELECT n.oid IS NOT NULL AS present,
       EXISTS (
           SELECT FROM pg_catalog.pg_attribute AS a
           WHERE a.attrelid = pg_catalog.to_regclass('notifier.version') AND a.attname = 'version_num'
       ) AS versioned,
       pg_catalog.to_regclass('notifier.log') IS NOT NULL
           AND pg_catalog.to_regclass('notifier.watches') IS NOT NULL AS logged,
       EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.relnamespace = n.oid)
           OR EXISTS (SELECT FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = n.oid)
           OR EXISTS (SELECT FROM pg_catalog.pg_type AS t WHERE t.typnamespace = n.oid) AS occupied
FROM (VALUES ('notifier')) AS given (name)
LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = given.name
