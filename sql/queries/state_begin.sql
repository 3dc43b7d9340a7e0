-- The beginning of a transaction that reads a state, before its snapshot: the relay must not truncate changes that
-- are unread in it, and `refuse_reading.sql` has the reason for the first statement. ROW SHARE, which a role may
-- request that may delete rows, but not read every column.
SET TRANSACTION NOT DEFERRABLE;
LOCK TABLE notifier.changes_0, notifier.changes_1 IN ROW SHARE MODE
