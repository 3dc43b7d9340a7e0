-- A number that is another one once a watched table was altered: the relay then reads its columns again.
--
-- PostgreSQL holds the number in the plan of the expression below, and discards the plan when one of the relations is
-- altered (see `plain_relations`): so a call costs a few microseconds, however many tables there are. The number is
-- another one in each session, and also after what alters no column: a new index, statistics.
--
-- A session processes what others have altered when it takes a lock, and the caller has its snapshot by then: the
-- number is new where the snapshot shows changes that were made after an ALTER TABLE was committed. A transaction
-- that alters a table and writes to it is visible for an instant before PostgreSQL reports what it altered; then the
-- next number is new.
CREATE OR REPLACE FUNCTION notifier.catalogue_version() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    LOCK TABLE notifier.watches IN ACCESS SHARE MODE;
    RETURN notifier.planning_time(:relations);
END
$$;
