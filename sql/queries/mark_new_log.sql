-- In a new log no role was granted anything by `migrate`, whatever default privileges gave. `saved_by` is set, as relays set it: a row
-- that is restored from a dump has another xmin, so an epoch begins, also where no relay had led before the dump. The number is that of
-- the row's version, which may be written in a savepoint: the second version has the xmin of the first.
DELETE FROM notifier.grants;
UPDATE notifier.log SET saved_by = NULL;
UPDATE notifier.log SET saved_by = log.xmin::text::xid8
