-- The messages of company $1 from position $2 on, that one included. Of one with views the first view: the message
-- itself does not name its transaction. `readable_json`, because `->` fails where a view has an escape of NUL, which a json column may have.
SELECT position, at, coalesce(notifier.readable_json(views) -> 0 -> 'Body', body) AS body FROM notifier.stored_messages
WHERE company = $1 AND position >= $2 AND EXISTS (SELECT FROM notifier.log WHERE epoch = $3)
ORDER BY position
