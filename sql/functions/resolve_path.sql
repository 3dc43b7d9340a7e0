-- The company, as JSON, that the value `key` leads to, which names a row of step `step` on the path of a watch. Null
-- or JSON's null: none. Fails where that cannot be told.
--
-- The tables are locked against being renamed and replaced before anything reads them, and must be tables of the role
-- that reads them: another role's table or view with their name would run its code. Without waiting: the
-- application's write would wait as well. `migrate` writes the locks below `-- paths`.
CREATE OR REPLACE FUNCTION notifier.resolve_path(watch text, step integer, key text) RETURNS json
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    company json;
    enforced boolean;
BEGIN
    IF key IS NULL THEN
        RETURN NULL;
    END IF;
    -- paths
:paths
    -- end
    IF enforced IS NULL THEN
        RAISE undefined_object;
    END IF;
    company := notifier.path_company(watch, step, key);
    IF company IS NULL THEN
        company := (
            SELECT v.company FROM notifier.vanished AS v
            WHERE v.xid = pg_current_xact_id() AND v.key = resolve_path.key
              AND v.watch = resolve_path.watch AND v.step = resolve_path.step
              AND v.since = transaction_timestamp()
            LIMIT 1
        );
    END IF;
    IF company IS NULL AND enforced THEN
        RAISE no_data_found;
    END IF;
    RETURN company;
END
$$;
