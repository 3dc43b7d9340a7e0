-- For each company of $1 the messages after the position of $2, at most $3 each, in the epoch $4.
SELECT wanted.n, m.seq, m.company, m.position, m.at, m.stored, m.body, m.revokes
FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::bigint[])) WITH ORDINALITY AS wanted (company, after, n)
CROSS JOIN LATERAL (
    SELECT * FROM notifier.messages
    WHERE messages.company = wanted.company AND messages.position > wanted.after
      AND EXISTS (SELECT FROM notifier.log WHERE epoch = $4)
    ORDER BY messages.position
    LIMIT $3
) AS m
ORDER BY wanted.n, m.position
