-- The next messages after seq $1 of epoch $2, or of a newer epoch from its beginning; at most $3. Always
-- at least one row, for the epoch.
SELECT log.epoch, log.epoch_seq, m.seq, m.company, m.position, m.at, m.stored, m.body, m.revokes
FROM notifier.log
LEFT JOIN LATERAL (
    SELECT * FROM notifier.messages
    WHERE messages.seq > CASE WHEN log.epoch = $2 THEN $1 ELSE log.epoch_seq END
    ORDER BY messages.seq
    LIMIT $3
) AS m ON true
ORDER BY m.seq
