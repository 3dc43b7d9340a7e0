-- What `plain_relations` returns. VOLATILE, so that it has a snapshot of its own: that of a transaction in READ COMMITTED is
-- then not older than the table that is being written, which is locked.
CREATE OR REPLACE FUNCTION notifier.plain_relations_now(relations regclass[]) RETURNS oid[]
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
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
