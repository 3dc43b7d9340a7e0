-- Every company that the log knows.
SELECT company FROM notifier.positions
UNION
SELECT company FROM notifier.messages
