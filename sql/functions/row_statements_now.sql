-- What `row_statements` returns, with a snapshot of its own. Each session calls it when it first writes to a watched table,
-- so it plans no statement where all relations are plain.
CREATE OR REPLACE FUNCTION notifier.row_statements_now(relations regclass[]) RETURNS json
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1ms'
AS $$
DECLARE
    plain CONSTANT oid[] := notifier.plain_relations(relations);
    relation oid;
    named text[] := '{}';
    statements text[] := '{}';
BEGIN
    IF relations::oid[] <@ plain THEN
        RETURN NULL;
    END IF;
    FOR relation IN
        WITH RECURSIVE used (relation, type) AS (
            SELECT a.attrelid, a.atttypid FROM pg_attribute AS a
            WHERE a.attrelid = ANY (relations) AND a.attnum > 0 AND NOT a.attisdropped
            UNION
            SELECT u.relation, part.type
            FROM used AS u JOIN pg_type AS t ON t.oid = u.type
            CROSS JOIN LATERAL (
                SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype WHEN t.typcategory = 'A' THEN t.typelem END
                UNION ALL
                SELECT a.atttypid FROM pg_attribute AS a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
            ) AS part (type)
            WHERE u.type >= :first_user_oid
        )
        SELECT r.oid::oid
        FROM unnest(relations) AS r (oid)
        JOIN pg_class AS c ON c.oid = r.oid AND c.relkind IN ('r', 'p')
        WHERE r.oid::oid <> ALL (plain)
          AND NOT EXISTS (
              SELECT FROM used AS u JOIN pg_type AS t ON t.oid = u.type
              WHERE u.relation = r.oid AND t.typrelid >= :first_user_oid AND t.typrelid <> ALL (relations::oid[]))
    LOOP
        BEGIN  -- the write is to one of them, and must not wait or fail for another
            statements := statements || notifier.row_statement(relation, NULL);
            named := named || relation::text;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END LOOP;
    RETURN CASE WHEN named <> '{}' THEN json_object(named, statements) END;
END
$$;
