-- The log's epoch, and the present position in it of each company in $1.
SELECT log.epoch, c.company, greatest(p.position, m.position, 0) AS position
FROM notifier.log, unnest($1::text[]) AS c (company)
LEFT JOIN notifier.positions AS p USING (company)
LEFT JOIN LATERAL (
    SELECT messages.position FROM notifier.messages
    WHERE messages.company = c.company ORDER BY messages.position DESC LIMIT 1
) AS m ON true
