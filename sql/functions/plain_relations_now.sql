-- What `plain_relations` returns. VOLATILE, so that it has a snapshot of its own: that of a transaction in READ COMMITTED is
-- then not older than the table that is being written, which is locked.
--
-- In others the snapshot may be older than a table, or than its newest columns, which are looked at one table after the other. One that
-- another session has locked, or whose schema capture's owner may not use, counts as not plain: the write is to another table, and must not wait
-- or fail.
CREATE OR REPLACE FUNCTION notifier.plain_relations_now(relations regclass[]) RETURNS oid[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1ms'
AS $$
DECLARE
    candidates CONSTANT oid[] := ARRAY(
        SELECT r.oid::oid FROM unnest(relations) AS r (oid)
        WHERE NOT EXISTS (
            SELECT FROM pg_attribute AS a
            WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
              AND a.atttypid >= :first_user_oid AND NOT notifier.is_plain_type(a.atttypid)));
    relation oid;
    plain oid[] := '{}';
BEGIN
    IF current_setting('transaction_isolation') = 'read committed' THEN
        RETURN candidates;
    END IF;
    FOREACH relation IN ARRAY candidates LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = relation);
        BEGIN
            IF NOT EXISTS (
                SELECT FROM notifier.columns_of(relation) AS c
                WHERE c.type >= :first_user_oid AND NOT notifier.is_plain_type(c.type)) THEN
                plain := plain || relation;
            END IF;
        EXCEPTION WHEN lock_not_available OR insufficient_privilege OR undefined_object THEN
            NULL;
        END;
    END LOOP;
    RETURN plain;
END
$$;
