-- Those of the relations all of whose columns have plain types (`is_plain_type`).
--
-- IMMUTABLE, so that the planner calls it once and capture's plans hold the result. The literals of the
-- relations are in these plans, so PostgreSQL discards a plan when one of the relations is altered. The other
-- inputs never change, or only by a superuser: the base of a domain, the element of an array, the owner of an
-- extension's type.
CREATE OR REPLACE FUNCTION notifier.plain_relations(relations regclass[]) RETURNS oid[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(r.oid::oid), '{}')
    FROM unnest(relations) AS r (oid)
    WHERE NOT EXISTS (
        SELECT FROM pg_attribute AS a
        WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
          AND a.atttypid >= :first_user_oid AND NOT notifier.is_plain_type(a.atttypid)
    ) AND CASE
        WHEN current_setting('transaction_isolation') = 'read committed' THEN true
        -- the snapshot may be older than the table, or than its newest columns
        WHEN NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = r.oid) THEN false
        ELSE NOT EXISTS (
            SELECT FROM notifier.columns_of(r.oid) AS c
            WHERE c.type >= :first_user_oid AND NOT notifier.is_plain_type(c.type))
    END
$$;
