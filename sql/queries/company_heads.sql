-- The present position of each company in $1, 0 for one that has none, and when the change of the message at
-- that position was made, null where the message is not in the log any more. `epoch`, `seq`: the log's, at the same moment.
SELECT c.company, greatest(p.position, m.position, 0) AS position, p.company IS NOT NULL AS known,
       CASE WHEN m.position >= coalesce(p.position, 0) THEN m.at END AS at,
       log.epoch, greatest(log.seq, log.epoch_seq, (SELECT pg_catalog.max(messages.seq) FROM notifier.messages)) AS seq
FROM notifier.log CROSS JOIN pg_catalog.unnest($1::text[]) AS c (company)
LEFT JOIN notifier.positions AS p USING (company)
LEFT JOIN LATERAL (
    SELECT messages.position, messages.at FROM notifier.messages
    WHERE messages.company = c.company ORDER BY messages.position DESC LIMIT 1
) AS m ON true
