-- Whether the current role may read the rows of each watched table, whether row-level security applies to it, and
-- whether an index begins with the column by which a company's rows are found: its company, or its reference to the
-- next table on its path. The same for the columns of the tables along paths. Of a schema per tenant, all rows are
-- one company's.
WITH read (relation, needed, found_by, tenant) AS (
    SELECT w.relation, ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
                             WHERE a.attrelid = notifier.relation_of(w.relation) AND a.attnum > 0 AND NOT a.attisdropped
                               AND a.attname <> ALL (w.exclude)),
           coalesce(s.value, w.company), w.tenant
    FROM notifier.watches AS w LEFT JOIN notifier.steps AS s ON s.watch = w.entity AND s.step = 0
    UNION ALL
    SELECT s.relation, ARRAY[s.key, s.value], s.value, NULL FROM notifier.steps AS s WHERE s.step > 0
)
SELECT read.relation, pg_catalog.bool_and((
           SELECT pg_catalog.bool_and(pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT'))
           FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = r.oid AND a.attnum > 0 AND a.attname = ANY (read.needed)
       )) AS readable,
       pg_catalog.bool_or(pg_catalog.row_security_active(r.oid)) AS hidden,
       pg_catalog.string_agg(DISTINCT pg_catalog.quote_ident(c.attname), ', ') FILTER (WHERE NOT EXISTS (
           SELECT FROM pg_catalog.pg_index AS i
           WHERE i.indrelid = r.oid AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] = c.attnum)) AS unindexed
FROM read
JOIN pg_catalog.pg_class AS r ON r.oid = notifier.relation_of(read.relation)
LEFT JOIN pg_catalog.pg_attribute AS c ON c.attrelid = r.oid AND c.attname = read.found_by AND NOT c.attisdropped
WHERE read.tenant IS NOT NULL OR c.attnum IS NOT NULL
GROUP BY read.relation
ORDER BY read.relation
