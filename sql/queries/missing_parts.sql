-- Partitions, indexes and properties without which the relay cannot store or prune messages, or would lose or misorder some, and
-- that our schema lacks: a restore has left them out (`pg_restore --section`), or they were dropped, detached or altered. With
-- the statement that makes each again; null for a table.
WITH slot AS (
    SELECT n, pg_catalog.format('messages_%s', n) AS name FROM pg_catalog.generate_series(0, 7) AS n
), needed (relation, columns, is_unique) AS (
    VALUES ('positions', '{company}'::text[], true), ('vanished', '{xid, key, watch, step}', true),
           ('changes_0', '{xid}', false), ('changes_1', '{xid}', false)
    UNION ALL
    SELECT name, columns, true FROM slot, (VALUES ('{seq}'::text[]), ('{company, position}')) AS in_slot (columns)
)
SELECT pg_catalog.format('partition %s', s.name) AS name,
       CASE WHEN c.oid IS NULL
            THEN pg_catalog.format('CREATE TABLE notifier.%1$I PARTITION OF notifier.messages FOR VALUES IN (%2$s)'
                                   ' WITH (autovacuum_enabled = false); ALTER TABLE notifier.%1$I REPLICA IDENTITY FULL', s.name, s.n)
            ELSE pg_catalog.format('ALTER TABLE notifier.messages ATTACH PARTITION notifier.%I FOR VALUES IN (%s)', s.name, s.n)
       END AS statement
FROM slot AS s LEFT JOIN pg_catalog.pg_class AS c ON c.oid = pg_catalog.to_regclass('notifier.' || s.name)
WHERE c.oid IS NULL OR NOT c.relispartition
UNION ALL
SELECT pg_catalog.format('index on %s (%s)', n.relation, pg_catalog.array_to_string(n.columns, ', ')),
       pg_catalog.format('CREATE %s ON notifier.%I (%s)', CASE WHEN n.is_unique THEN 'UNIQUE INDEX' ELSE 'INDEX' END, n.relation,
                         pg_catalog.array_to_string(n.columns, ', '))
FROM needed AS n JOIN pg_catalog.pg_class AS c ON c.oid = pg_catalog.to_regclass('notifier.' || n.relation)
WHERE NOT EXISTS (
    SELECT FROM pg_catalog.pg_index AS i
    WHERE i.indrelid = c.oid AND i.indisvalid AND (i.indisunique OR NOT n.is_unique) AND i.indpred IS NULL AND i.indexprs IS NULL
      AND n.columns = ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
                            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.number ORDER BY k.place)
)
UNION ALL
SELECT pg_catalog.format('order of %s', c.relname),
       pg_catalog.format('ALTER SEQUENCE notifier.%I CACHE 1 INCREMENT BY 1 NO CYCLE', c.relname)
FROM pg_catalog.pg_sequence AS s JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid
WHERE c.oid = pg_catalog.to_regclass('notifier.change_ids') AND (s.seqcache <> 1 OR s.seqincrement <> 1 OR s.seqcycle)
UNION ALL
SELECT pg_catalog.format('permanence of %s', c.relname), pg_catalog.format('ALTER TABLE notifier.%I SET LOGGED', c.relname)
FROM pg_catalog.pg_class AS c
WHERE c.relnamespace = 'notifier'::pg_catalog.regnamespace AND c.relkind = 'r' AND c.relpersistence = 'u' AND c.relname <> 'vanished'
UNION ALL
SELECT pg_catalog.format('table %s', t.name), NULL
FROM pg_catalog.unnest('{changes_0, changes_1, configuration, grants, hidden_columns, log, messages, moves, patterns, positions,
                         scopes, signing_key, steps, vanished, watches}'::text[]) AS t (name)
WHERE pg_catalog.to_regclass('notifier.' || t.name) IS NULL
UNION ALL
SELECT 'sequence change_ids', NULL WHERE pg_catalog.to_regclass('notifier.change_ids') IS NULL
