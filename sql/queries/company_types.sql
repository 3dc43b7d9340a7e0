-- The types of the columns that name companies of the scope $1; of a domain, the type below it.
WITH RECURSIVE base (oid, next) AS (
    SELECT t.oid, t.typbasetype
    FROM notifier.watches AS w
    JOIN pg_catalog.pg_attribute AS a
      ON a.attrelid = pg_catalog.to_regclass(w.relation) AND a.attname = w.company AND NOT a.attisdropped
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    WHERE coalesce(w.scope, '') = $1
    UNION
    SELECT t.oid, t.typbasetype FROM base AS b JOIN pg_catalog.pg_type AS t ON t.oid = b.next
)
SELECT pg_catalog.format_type(b.oid, NULL) AS type FROM base AS b WHERE b.next = 0
