-- The companies of all messages keep a row in positions when the messages are emptied.
INSERT INTO notifier.positions (company)
SELECT DISTINCT company FROM notifier.messages
ON CONFLICT DO NOTHING
