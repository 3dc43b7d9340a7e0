-- In a new log no role was allowed anything yet, whatever default privileges gave. Its row is marked as this version of it,
-- as relays do: one that is restored from a dump of before the first relay is another.
DELETE FROM notifier.grants;
UPDATE notifier.log SET saved_by = pg_catalog.pg_current_xact_id()
