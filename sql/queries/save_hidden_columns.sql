-- Saves the numbers of the columns that watches exclude, or name in visible_to.
INSERT INTO notifier.hidden_columns (relation, name, number, excluded, database)
SELECT DISTINCT ON (a.attrelid, a.attname)
       a.attrelid, a.attname, a.attnum, given.excluded, regexp_replace(notifier.system(), '/.*/', '/')
FROM notifier.watches AS w
CROSS JOIN LATERAL (
    SELECT unnest(w.exclude), true UNION ALL SELECT unnest(w.visible_to), false
) AS given (name, excluded)
JOIN pg_attribute AS a ON a.attrelid = to_regclass(w.relation) AND a.attname = given.name AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attname, given.excluded DESC
ON CONFLICT DO NOTHING
