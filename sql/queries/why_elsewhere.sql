-- In how many other companies than $1 there are messages of which a text contains $2.
SELECT count(DISTINCT company) FROM notifier.stored_messages WHERE company <> $1 AND strpos(concat(body, views), $2) > 0
