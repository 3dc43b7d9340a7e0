-- What `migrate` would do about triggers.
SELECT relation, name, statement, wanted, present, sound
FROM notifier.capture_triggers()
WHERE NOT sound
ORDER BY relation, name
