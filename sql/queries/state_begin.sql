-- The beginning of a transaction that reads a state. These are the settings of `capture.sql`, so that a value is serialised
-- as there, and those of PINNED in `connections.py`, which a pooled connection does not have.
--
-- The lock comes before the transaction's snapshot: the relay must not truncate changes that are unread in it.
SET LOCAL timezone = 'UTC';
SET LOCAL extra_float_digits = 1;
SET LOCAL datestyle = 'ISO';
SET LOCAL intervalstyle = 'postgres';
SET LOCAL bytea_output = 'hex';
SET LOCAL row_security = off;
SET LOCAL search_path = pg_catalog, pg_temp;
LOCK TABLE notifier.changes_0, notifier.changes_1 IN ACCESS SHARE MODE
