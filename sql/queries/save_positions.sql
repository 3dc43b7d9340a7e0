-- Saves the end of the log before its messages are truncated: the companies keep their positions. The relay, whose
-- version of its row this is not, stores nothing more in the log and begins an epoch.
WITH positions AS (
    INSERT INTO notifier.positions AS p (company, position)
    SELECT company, pg_catalog.max(position) FROM notifier.messages GROUP BY company
    ON CONFLICT (company) DO UPDATE SET position = greatest(p.position, excluded.position)
)
UPDATE notifier.log
SET seq = greatest(seq, (SELECT pg_catalog.max(messages.seq) FROM notifier.messages)), saved_by = '0'
