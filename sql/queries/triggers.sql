-- Every trigger that calls a function of the schema `notifier`; a partition's clones go with their parent's. `always`:
-- it is enabled ALWAYS, so that it also fires for rows that a subscription applies.
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS relation, pg_catalog.quote_ident(t.tgname) AS name,
       t.tgenabled = 'A' AS always
FROM pg_catalog.pg_trigger AS t
JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE p.pronamespace = pg_catalog.to_regnamespace('notifier') AND t.tgparentid = 0 AND NOT t.tgisinternal
ORDER BY relation, name
