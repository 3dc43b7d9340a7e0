-- What `migrate` would do about triggers: those of the table $1, or all (null). `name` is quoted: a table's owner may
-- rename its triggers.
SELECT relation, pg_catalog.quote_ident(name) AS name, statement, wanted, present, sound
FROM notifier.capture_triggers($1::text)
WHERE NOT sound
ORDER BY relation, name
