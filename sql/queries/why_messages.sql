-- Messages of company $1, the newest first, at most $5: that at position $2, those of which a text contains $3, and those
-- that may take access away ($4); null and false: any.
SELECT position, at, body, revokes, views
FROM notifier.stored_messages
WHERE company = $1
  AND ($2::bigint IS NULL OR position = $2)
  AND ($3::text IS NULL OR strpos(concat(body, views), $3) > 0)
  AND (NOT $4::boolean OR revokes IS NOT NULL)
ORDER BY position DESC
LIMIT $5
