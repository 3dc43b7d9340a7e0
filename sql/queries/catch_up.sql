-- The next messages after seq $1 of epoch $2, or of a newer epoch from its beginning; at most $3, and about
-- $4 bytes of them. Always at least one row, for the epoch.
SELECT log.epoch, log.epoch_seq, m.seq, m.company, m.position, m.at, m.stored, m.body, m.revokes, m.views,
       m.traceparent
FROM notifier.log
LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT *, sum(octet_length(page.body::text) + coalesce(octet_length(page.views::text), 0)) OVER (
                      ORDER BY page.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
        FROM (
            SELECT * FROM notifier.stored_messages AS message
            WHERE message.seq > CASE WHEN log.epoch = $2 THEN $1 ELSE log.epoch_seq END
            ORDER BY message.seq
            LIMIT $3
        ) AS page
    ) AS weighed
    WHERE weighed.bytes_before IS NULL OR weighed.bytes_before < $4
) AS m ON true
ORDER BY m.seq
