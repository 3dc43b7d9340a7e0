-- The application's tables, as JSON: columns, primary key, and foreign keys of one column. No partitions, and
-- nothing of PostgreSQL's, of extensions' or of ours. $1: those that need no schema.
SELECT pg_catalog.json_build_object(
    'relation', pg_catalog.format('%I.%I', n.nspname, c.relname),
    'schema', n.nspname, 'name', c.relname,
    'is_reachable', c.oid = ANY ($1::oid[]),
    'columns', (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'name', a.attname, 'type', pg_catalog.format_type(a.atttypid, NULL), 'not_null', a.attnotnull
        ) ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    ),
    'key', ARRAY(
        SELECT a.attname::text
        FROM pg_catalog.pg_constraint AS k
        CROSS JOIN LATERAL pg_catalog.unnest(k.conkey) WITH ORDINALITY AS u (attnum, n)
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = u.attnum
        WHERE k.conrelid = c.oid AND k.contype = 'p' ORDER BY u.n
    ),
    'references', (
        SELECT coalesce(pg_catalog.json_object_agg(a.attname, pg_catalog.format('%I.%I', fn.nspname, f.relname)), '{}')
        FROM pg_catalog.pg_constraint AS k
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
        JOIN pg_catalog.pg_class AS f ON f.oid = k.confrelid
        JOIN pg_catalog.pg_namespace AS fn ON fn.oid = f.relnamespace
        WHERE k.conrelid = c.oid AND k.contype = 'f' AND pg_catalog.cardinality(k.conkey) = 1
    )
)::text
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'notifier') AND n.nspname NOT LIKE 'pg\_%'
  AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_depend AS d
      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e'
  )
ORDER BY n.nspname, c.relname
