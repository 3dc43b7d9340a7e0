-- Saves the numbers of the columns that watches of the relations $1 (null: of all) exclude, or name in visible_to. `database`: the numbers of our own
-- table, by which a restored dump differs, whose tables all have others; pg_upgrade and CREATE DATABASE ... TEMPLATE
-- keep the numbers.
INSERT INTO notifier.hidden_columns (relation, name, number, excluded, database)
SELECT DISTINCT ON (a.attrelid, a.attname)
       a.attrelid, a.attname, a.attnum, given.excluded, format('%s/%s', own.oid, own.reltype)
FROM notifier.watches AS w
JOIN pg_class AS own ON own.oid = 'notifier.hidden_columns'::regclass
CROSS JOIN LATERAL (
    SELECT unnest(w.exclude), true UNION ALL SELECT unnest(w.visible_to), false
) AS given (name, excluded)
-- also of a table in a schema that the current role may not use: capture goes on there
JOIN pg_namespace AS n ON n.nspname = (parse_ident(w.relation))[1]
JOIN pg_class AS r ON r.relnamespace = n.oid AND r.relname = (parse_ident(w.relation))[2]
JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attname = given.name AND a.attnum > 0 AND NOT a.attisdropped
WHERE $1::text[] IS NULL OR w.relation = ANY ($1)
ORDER BY a.attrelid, a.attname, given.excluded DESC
ON CONFLICT DO NOTHING
