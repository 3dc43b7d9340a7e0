-- Deletes the captured changes of the entities $1 from the second table of changes.
DELETE FROM notifier.changes_1 WHERE entity = ANY ($1::text[])
