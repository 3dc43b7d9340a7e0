-- Of the schema `notifier`: whether it is there, has Alembic's table and our log, and whether it holds anything.
-- The function that stands in for `capture` while a partial dump is loaded (docs/deploy.md) does not count.
SELECT n.oid IS NOT NULL AS present,
       EXISTS (
           SELECT FROM pg_catalog.pg_class AS v JOIN pg_catalog.pg_attribute AS a ON a.attrelid = v.oid
           WHERE v.oid = pg_catalog.to_regclass('notifier.version') AND v.relkind = 'r' AND a.attname = 'version_num'
       ) AS versioned,
       pg_catalog.to_regclass('notifier.log') IS NOT NULL
           AND pg_catalog.to_regclass('notifier.watches') IS NOT NULL AS logged,
       EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.relnamespace = n.oid)
           OR EXISTS (SELECT FROM pg_catalog.pg_proc AS p
                      WHERE p.pronamespace = n.oid
                        AND NOT (p.proname = 'capture' AND p.pronargs = 0 AND p.prorettype = 'trigger'::pg_catalog.regtype
                                 AND p.prosrc ~* '^\s*BEGIN\s+RETURN\s+NULL;\s*END;?\s*$'))
           OR EXISTS (SELECT FROM pg_catalog.pg_type AS t WHERE t.typnamespace = n.oid) AS occupied
FROM (VALUES ('notifier')) AS given (name)
LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = given.name
