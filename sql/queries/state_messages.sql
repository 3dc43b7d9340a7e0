-- The messages of company $1 from position $2 on, that one included.
SELECT position, at, body FROM notifier.messages
WHERE company = $1 AND position >= $2 AND EXISTS (SELECT FROM notifier.log WHERE epoch = $3)
ORDER BY position
