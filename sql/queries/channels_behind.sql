-- The log's epoch and last seq, and in the same rows each company of $1 whose last position is greater than
-- that in $2. One row where there is none.
SELECT log.epoch, greatest(log.seq, log.epoch_seq, (SELECT max(messages.seq) FROM notifier.messages)) AS seq,
       behind.company, behind.position
FROM notifier.log
LEFT JOIN LATERAL (
    SELECT c.company, greatest(p.position, m.position, 0) AS position
    FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::bigint[])) AS c (company, delivered)
    LEFT JOIN notifier.positions AS p USING (company)
    LEFT JOIN LATERAL (
        SELECT messages.position FROM notifier.messages
        WHERE messages.company = c.company ORDER BY messages.position DESC LIMIT 1
    ) AS m ON true
    WHERE greatest(p.position, m.position, 0) > c.delivered
) AS behind ON true
