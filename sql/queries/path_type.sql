WITH RECURSIVE base (oid, next) AS (
    SELECT t.oid, t.typbasetype
    FROM pg_catalog.pg_attribute AS named JOIN pg_catalog.pg_type AS t ON t.oid = named.atttypid
    WHERE named.attrelid = c.oid AND named.attname = {column} AND named.attnum > 0 AND NOT named.attisdropped
      AND named.attgenerated <> 'v'
    UNION
    SELECT t.oid, t.typbasetype FROM base AS b JOIN pg_catalog.pg_type AS t ON t.oid = b.next
)
SELECT min(pg_catalog.format_type(b.oid, NULL)) AS type FROM base AS b
WHERE b.next = 0 AND b.oid = ANY ('{{int2, int4, int8, uuid, text, varchar}}'::pg_catalog.regtype[])
