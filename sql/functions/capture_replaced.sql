-- capture_replaced(): at the end of a transaction that has deleted a row on a path, or changed its key, captures that
-- another row has that key now and leads to another company. The children of the key are then that company's: both
-- get a Resync.
--
-- A deferred trigger on notifier.vanished: none on the application's tables, which it could not alter while an event is
-- pending. Nothing is done where a row is inserted. It never breaks the application's COMMIT.
CREATE OR REPLACE FUNCTION notifier.capture_replaced() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    entity text;
    name json;
    company json;
    unmoved text;  -- as in `capture_parent`
    seen text;
BEGIN
    BEGIN
        -- SET CONSTRAINTS ALL IMMEDIATE: the application's statement has not ended.
        IF pg_trigger_depth() > 1 THEN
            EXECUTE format('SET CONSTRAINTS notifier.%I DEFERRED', TG_NAME);
            UPDATE notifier.vanished AS v SET since = v.since
            WHERE v.xid = NEW.xid AND v.key = NEW.key AND v.watch = NEW.watch AND v.step = NEW.step;
            RETURN NULL;
        END IF;
        -- In most transactions no row can have taken the key. The counters are 0 as well where track_counts is off.
        IF pg_stat_get_xact_tuples_inserted(NEW.relation) + pg_stat_get_xact_tuples_updated(NEW.relation) = 0
           AND pg_stat_get_xact_tuples_inserted(TG_RELID) > 0 THEN
            RETURN NULL;
        END IF;
        SELECT w.captured_as, to_json('->' || w.entity) INTO entity, name FROM notifier.watches AS w WHERE w.entity = NEW.watch;
        company := coalesce(notifier.resolve_path(NEW.watch, NEW.step, to_json(NEW.key)), 'null');
        unmoved := CASE WHEN company::text = NEW.company::text THEN ',"-> unmoved":true' END;
        IF unmoved IS NULL OR EXISTS (SELECT FROM notifier.steps AS s WHERE s.watch = NEW.watch AND s.step > NEW.step) THEN
            seen := CASE WHEN current_setting('transaction_isolation') <> 'read committed'
                         THEN concat(',"->snapshot":', to_json(pg_current_snapshot()::text)) END;
            PERFORM notifier.store_change(entity, concat('{', name, ':', NEW.company, unmoved, seen, '}')::json,
                                          concat('{', name, ':', company, unmoved, seen, '}')::json, true);
        END IF;
    EXCEPTION WHEN OTHERS THEN
        BEGIN
            PERFORM notifier.store_change(entity, NULL, NULL, true);
        EXCEPTION WHEN OTHERS THEN  -- the transaction is read-only by now
            NULL;
        END;
    END;
    RETURN NULL;
END
$$;
