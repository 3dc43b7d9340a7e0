-- In how many other companies than $1 there are messages whose text contains $2.
SELECT count(DISTINCT company) FROM notifier.messages WHERE company <> $1 AND strpos(body::text, $2) > 0
