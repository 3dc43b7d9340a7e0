-- Deletes the captured changes of the entities $1 from the first table of changes.
DELETE FROM notifier.changes_0 WHERE entity = ANY ($1::text[])
