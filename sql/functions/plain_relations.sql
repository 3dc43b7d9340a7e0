-- Those of the relations all of whose columns have plain types (`is_plain_type`).
--
-- IMMUTABLE, so that the planner calls it once and capture's plans hold the result. The literals of the
-- relations are in these plans, so PostgreSQL discards a plan when one of the relations is altered. The other
-- inputs never change, or only by a superuser: the base of a domain, the element of an array, the owner of an
-- extension's type.
--
-- The snapshot with which the planner calls it is that of the application's statement. COPY and EXPLAIN have taken theirs
-- before they wait for the lock of a session that alters the table. So it only calls a VOLATILE function, which takes a
-- new one.
CREATE OR REPLACE FUNCTION notifier.plain_relations(relations regclass[]) RETURNS oid[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN notifier.plain_relations_now(relations);
END
$$;
