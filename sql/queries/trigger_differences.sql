-- What `migrate` would do about triggers: those of the table $1, or all (null).
SELECT relation, name, statement, wanted, present, sound
FROM notifier.capture_triggers($1::text)
WHERE NOT sound
ORDER BY relation, name
