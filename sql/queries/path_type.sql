WITH RECURSIVE base (oid, next) AS (
    SELECT t.oid, t.typbasetype
    FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    WHERE a.attrelid = c.oid AND a.attname = {column} AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
    UNION
    SELECT t.oid, t.typbasetype FROM base AS b JOIN pg_catalog.pg_type AS t ON t.oid = b.next
)
SELECT min(pg_catalog.format_type(b.oid, NULL)) AS type FROM base AS b
WHERE b.next = 0 AND b.oid = ANY ('{{int2, int4, int8, uuid, text, varchar}}'::pg_catalog.regtype[])
