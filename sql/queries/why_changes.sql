-- The captured changes that are still there: of transaction $1, or of entity $2 with $3 in the text of an image.
SELECT id, xid::text::bigint AS xid, entity, old, new, partial, actor, at
FROM notifier.changes
WHERE ($1::text IS NULL OR xid = $1::text::xid8)
  AND ($2::text IS NULL OR entity = $2 AND (strpos(old::text, $3) > 0 OR strpos(new::text, $3) > 0))
ORDER BY id
LIMIT 100000
