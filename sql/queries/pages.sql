-- For each company of $1 the messages after the position of $2, at most $3 each and about $5 bytes of them,
-- in the epoch $4.
SELECT wanted.n, m.seq, m.company, m.position, m.at, m.stored, m.body, m.revokes, m.views
FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::bigint[])) WITH ORDINALITY AS wanted (company, after, n)
CROSS JOIN LATERAL (
    SELECT *, pg_catalog.sum(pg_catalog.octet_length(page.body::text) + coalesce(pg_catalog.octet_length(page.views::text), 0)) OVER (
                  ORDER BY page.position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM (
        SELECT * FROM notifier.stored_messages AS message
        WHERE message.company = wanted.company AND message.position > wanted.after
          AND EXISTS (SELECT FROM notifier.log WHERE epoch = $4)
        ORDER BY message.position
        LIMIT $3
    ) AS page
) AS m
WHERE m.bytes_before IS NULL OR m.bytes_before < $5
ORDER BY wanted.n, m.position
