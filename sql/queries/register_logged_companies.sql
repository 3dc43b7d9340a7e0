-- Gives the company of each message a row in notifier.positions, before the messages are truncated.
INSERT INTO notifier.positions (company)
SELECT DISTINCT company FROM notifier.messages
ON CONFLICT DO NOTHING
