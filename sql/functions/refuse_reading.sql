-- Raises unless the role may read the tables of the log themselves: a view that guards the log calls it in a
-- transaction that is not DEFERRABLE. Nodes read the log in transactions that are, and the tables of the application
-- in others; so code of the application that the planner runs there reads nothing of the log.
--
-- A transaction cannot become DEFERRABLE once it has a snapshot: RESET makes it NOT DEFERRABLE, and parallel workers
-- inherit it. Whether it may write would not do: before PostgreSQL 16 RESET makes it writable, and before 18 it is
-- writable in parallel workers.
CREATE OR REPLACE FUNCTION notifier.refuse_reading() RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF has_table_privilege('notifier.messages', 'SELECT') AND has_table_privilege('notifier.changes_0', 'SELECT')
       AND has_table_privilege('notifier.changes_1', 'SELECT') AND has_table_privilege('notifier.signing_key', 'SELECT') THEN
        RETURN true;
    END IF;
    RAISE EXCEPTION 'the log is only readable in a DEFERRABLE transaction' USING ERRCODE = 'insufficient_privilege';
END
$$;
