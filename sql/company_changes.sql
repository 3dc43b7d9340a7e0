-- Of one large transaction: first what concerns every company, then the changes company by company but
-- for the companies $2. A row that moved comes once for each of its two.
SELECT company, id, xid, entity, operation, old, new, partial, actor, at
FROM (
    SELECT DISTINCT ON ((image -> w.company)::text, c.id)
           (image -> w.company)::text AS company, c.id, c.xid::text::bigint AS xid, c.entity,
           c.operation::text AS operation, c.old, c.new, c.partial, c.actor, c.at
    FROM notifier.changes AS c
    JOIN notifier.watches AS w USING (entity)
    CROSS JOIN LATERAL (VALUES (notifier.readable(c.old)), (notifier.readable(c.new))) AS side (image)
    WHERE c.xid = $1::bigint::text::xid8 AND image IS NOT NULL
      AND (image -> w.company)::text IS NOT NULL
      AND NOT ((image -> w.company)::text = ANY ($2::text[]))
    ORDER BY (image -> w.company)::text, c.id
) AS touched
UNION ALL
SELECT NULL, c.id, c.xid::text::bigint, c.entity, c.operation::text, c.old, c.new, c.partial, c.actor, c.at
FROM notifier.changes AS c
LEFT JOIN notifier.watches AS w USING (entity)
WHERE c.xid = $1::bigint::text::xid8
  AND (c.operation = 'T' OR (notifier.readable(c.old) -> w.company IS NULL
                             AND notifier.readable(c.new) -> w.company IS NULL))
ORDER BY company NULLS FIRST, id
