-- Every company in the log.
SELECT company FROM notifier.positions
UNION
SELECT company FROM notifier.messages
