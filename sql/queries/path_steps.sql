-- The steps of all paths, in order, as the catalogue has them now: names quoted, and the types of the columns, null
-- where there is no such column, or its type is not among those that a path may go along. Of a domain, the type below it.
-- `entity`: that of the changes of the watched table. `start`: the column of that table that the path begins with.
SELECT w.captured_as AS entity, s.watch, s.step, s.relation, s.enforced,
       first_value(s.value) OVER (PARTITION BY s.watch ORDER BY s.step) AS start,
       pg_catalog.quote_ident(s.key) AS key, pg_catalog.quote_ident(s.value) AS value,
       kt.type AS key_type, vt.type AS value_type,
       pg_catalog.pg_get_userbyid(c.relowner)::text AS owner
FROM notifier.steps AS s
JOIN notifier.watches AS w ON w.entity = s.watch
-- not by `to_regclass`, which raises where the current role may not use the schema
LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = (pg_catalog.parse_ident(s.relation))[1]
LEFT JOIN pg_catalog.pg_class AS c
    ON c.relnamespace = n.oid AND c.relname = (pg_catalog.parse_ident(s.relation))[2] AND (c.relkind = 'r' OR s.step = 0)
CROSS JOIN LATERAL ({key_type}) AS kt
CROSS JOIN LATERAL ({value_type}) AS vt
ORDER BY s.watch, s.step
