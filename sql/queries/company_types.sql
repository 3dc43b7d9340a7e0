-- The types of the columns that name companies of the scope $1; of a domain, the type below it.
WITH RECURSIVE base (oid, next) AS (
    SELECT t.oid, t.typbasetype
    FROM notifier.watches AS w
    LEFT JOIN notifier.steps AS s
      ON s.watch = w.entity AND s.step = (SELECT max(l.step) FROM notifier.steps AS l WHERE l.watch = w.entity)
    JOIN pg_catalog.pg_attribute AS a
      ON a.attrelid = notifier.relation_of(coalesce(s.relation, w.relation))
     AND a.attname = coalesce(s.value, w.company) AND NOT a.attisdropped
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    WHERE coalesce(w.scope, '') = $1
    UNION
    SELECT t.oid, t.typbasetype FROM base AS b JOIN pg_catalog.pg_type AS t ON t.oid = b.next
)
SELECT pg_catalog.format_type(b.oid, NULL) AS type FROM base AS b WHERE b.next = 0
