-- Every table that could be meant, spelled as in SQL: without its schema if it is among $1.
SELECT CASE WHEN c.oid = ANY ($1::oid[]) THEN pg_catalog.quote_ident(c.relname)
            ELSE pg_catalog.format('%I.%I', n.nspname, c.relname) END
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'notifier')
  AND n.nspname !~ '^pg_(temp|toast_temp)_'
ORDER BY 1
