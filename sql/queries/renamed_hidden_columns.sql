-- The columns of relation $1 that watches hide by the names $2, and that have another name now, which is not among them.
SELECT h.name, a.attname::text AS now
FROM notifier.hidden_columns AS h
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = h.relation AND a.attnum = h.number
WHERE h.relation = notifier.relation_of($1) AND h.name = ANY ($2::text[])
  AND NOT a.attisdropped AND a.attname <> h.name AND a.attname <> ALL ($2::text[])
  AND h.database IN (
      SELECT pg_catalog.format('%s/%s', own.oid, own.reltype) FROM pg_catalog.pg_class AS own
      WHERE own.oid = 'notifier.hidden_columns'::pg_catalog.regclass
      UNION ALL SELECT pg_catalog.regexp_replace(notifier.system(), '/.*/', '/')  -- as the version before has saved it
  )
ORDER BY h.name
