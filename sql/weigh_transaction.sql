-- Of one large transaction: how many rows of each company it touched. Companies come as JSON: `->>`
-- would trip over an escape anywhere in the row that text cannot hold.
SELECT company, count(DISTINCT (entity, key)) AS rows, max(at) AS at
FROM (
    SELECT c.at, c.entity, (image -> w.company)::text AS company, (image -> w.key)::text AS key
    FROM notifier.changes AS c
    JOIN notifier.watches AS w USING (entity)
    CROSS JOIN LATERAL (VALUES (notifier.readable(c.old)), (notifier.readable(c.new))) AS side (image)
    WHERE c.xid = $1::bigint::text::xid8 AND image IS NOT NULL
) AS touched
WHERE company IS NOT NULL AND company <> 'null'
GROUP BY company
ORDER BY company
