-- Whether the current role may read the rows of each watched table, whether row-level security applies to it, and whether
-- an index begins with the company column; of a schema per tenant, all rows are one company's.
SELECT DISTINCT w.relation,
       (SELECT pg_catalog.bool_and(pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT'))
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL (w.exclude)) AS readable,
       pg_catalog.row_security_active(r.oid) AS hidden,
       EXISTS (SELECT FROM pg_catalog.pg_index AS i
               WHERE i.indrelid = r.oid AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] = c.attnum) OR w.tenant IS NOT NULL AS indexed
FROM notifier.watches AS w
JOIN pg_catalog.pg_class AS r ON r.oid = pg_catalog.to_regclass(w.relation)
LEFT JOIN pg_catalog.pg_attribute AS c ON c.attrelid = r.oid AND c.attname = w.company AND NOT c.attisdropped
WHERE w.tenant IS NOT NULL OR c.attnum IS NOT NULL
ORDER BY w.relation
