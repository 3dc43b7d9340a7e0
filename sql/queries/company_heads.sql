-- The present position of each company in $1; 0 for one that has none.
SELECT c.company, greatest(p.position, m.position, 0) AS position, p.company IS NOT NULL AS known
FROM pg_catalog.unnest($1::text[]) AS c (company)
LEFT JOIN notifier.positions AS p USING (company)
LEFT JOIN LATERAL (
    SELECT messages.position FROM notifier.messages
    WHERE messages.company = c.company ORDER BY messages.position DESC LIMIT 1
) AS m ON true
