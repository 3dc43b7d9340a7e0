-- The beginning of a transaction that reads a state, before its snapshot: the relay must not truncate changes that
-- are unread in it, and `refuse_reading.sql` has the reason for the first statement. ROW SHARE, which a role may
-- request that may delete rows, but not read every column.
--
-- The lock is held until these changes were read, by a savepoint, not while the rows are: clients that request states without
-- a pause would keep the relay from emptying the tables. The snapshot outlives the savepoint, settings would not.
--
-- They are those that capture.sql sets, so that values are serialised as there, and PINNED of `connections.py`, which a pooled
-- connection does not have.
SET TRANSACTION NOT DEFERRABLE;
SET LOCAL timezone = 'UTC';
SET LOCAL extra_float_digits = 1;
SET LOCAL datestyle = 'ISO';
SET LOCAL intervalstyle = 'postgres';
SET LOCAL bytea_output = 'hex';
SET LOCAL row_security = off;
SAVEPOINT unread;
LOCK TABLE notifier.changes_0, notifier.changes_1 IN ROW SHARE MODE
