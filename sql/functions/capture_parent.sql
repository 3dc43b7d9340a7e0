-- capture_parent(steps): captures changes of rows on paths. If such a row now leads to another company, or to none, a
-- change with only the two companies is stored, and both get a Resync. One that leads to the same company along another
-- way is stored as well, as `unmoved`, and is no Resync by itself: another row on that way may have moved, unseen here.
--
-- A deleted row is kept with its company until the transaction ends (notifier.vanished): a foreign key that cascades
-- deletes its children when the row can no longer be read.
--
-- `steps`: six texts for each step that is in this table: the entity of the changes of the watched table, the watch,
-- the step, the columns `key` and `value` of notifier.steps, and flags: `last` where the value is the
-- company, `loose` where no foreign key is enforced. A trigger's condition would keep the application from dropping
-- the column. Like capture, it never breaks the application's write.
CREATE OR REPLACE FUNCTION notifier.capture_parent() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
SET extra_float_digits = 1 SET datestyle = 'ISO' SET intervalstyle = 'postgres' SET bytea_output = 'hex'
SET enable_seqscan = off
AS $$
DECLARE
    steps CONSTANT text[] := TG_ARGV[0];
    entity text;
    name text;
    was json;
    became json;
    from_company json;
    to_company json;
    seen text;  -- the snapshot of a transaction that has one for all its statements: see `path_images`
    unmoved text;
    old_image json;
    new_image json;
    records bigint;  -- that this transaction has added to notifier.vanished; 0 where PostgreSQL does not count
BEGIN
    BEGIN
        was := CASE WHEN TG_RELID = ANY (notifier.plain_relations(:relations)) THEN row_to_json(OLD)
                    ELSE notifier.row_image(OLD, TG_RELID, notifier.row_statements(:relations)) END;
        became := CASE WHEN TG_RELID = ANY (notifier.plain_relations(:relations)) THEN row_to_json(NEW)
                       ELSE notifier.row_image(NEW, TG_RELID, notifier.row_statements(:relations)) END;
        IF strpos(concat(was, became), E'\\u') > 0 THEN  -- `->` fails at an escape of NUL anywhere in a row
            was := coalesce(notifier.sanitize_json(was), CASE WHEN was IS NOT NULL THEN '{}'::json END);
            became := coalesce(notifier.sanitize_json(became), CASE WHEN became IS NOT NULL THEN '{}'::json END);
        END IF;
    EXCEPTION WHEN OTHERS THEN
        was := '{}';
        became := '{}';
    END;
    FOR n IN 1 .. cardinality(steps) BY 6 LOOP
        entity := steps[n];
        name := to_json('->' || steps[n + 1]);
        unmoved := NULL;
        BEGIN
            IF TG_OP = 'TRUNCATE' THEN
                PERFORM notifier.store_change(entity, NULL, NULL, false);
                CONTINUE;
            END IF;
            IF was -> steps[n + 3] IS NULL AND was IS NOT NULL OR was -> steps[n + 4] IS NULL AND was IS NOT NULL
               OR became -> steps[n + 3] IS NULL AND became IS NOT NULL
               OR became -> steps[n + 4] IS NULL AND became IS NOT NULL THEN
                RAISE undefined_column;
            END IF;
            CONTINUE WHEN TG_OP = 'INSERT' AND steps[n + 5] !~ 'loose'
                OR (was -> steps[n + 3])::text = (became -> steps[n + 3])::text
                   AND (was -> steps[n + 4])::text = (became -> steps[n + 4])::text;
            IF steps[n + 5] ~ 'last' THEN
                from_company := was -> steps[n + 4];
                to_company := became -> steps[n + 4];
            ELSE
                from_company := CASE WHEN was IS NOT NULL
                    THEN notifier.resolve_path(steps[n + 1], steps[n + 2]::int + 1, was -> steps[n + 4]) END;
                to_company := CASE WHEN became IS NOT NULL
                    THEN notifier.resolve_path(steps[n + 1], steps[n + 2]::int + 1, became -> steps[n + 4]) END;
            END IF;
            IF octet_length(from_company::text) > 8388608 OR octet_length(to_company::text) > 8388608 THEN  -- as in `capture`
                RAISE program_limit_exceeded;
            END IF;
            IF was IS NOT NULL AND (was -> steps[n + 3])::text IS DISTINCT FROM (became -> steps[n + 3])::text THEN
                INSERT INTO notifier.vanished (watch, step, key, company, relation)
                SELECT steps[n + 1], steps[n + 2]::int, (was -> steps[n + 3]) #>> '{}', coalesce(from_company, 'null'), TG_RELID
                WHERE (was -> steps[n + 3]) #>> '{}' IS NOT NULL
                ON CONFLICT (xid, key, watch, step) DO UPDATE SET company = excluded.company, since = excluded.since;
                records := pg_stat_get_xact_tuples_inserted('notifier.vanished'::regclass);
                IF records & (records - 1) = 0 THEN
                    BEGIN
                        DELETE FROM notifier.vanished AS v WHERE v.ctid = ANY (ARRAY(
                            SELECT o.ctid FROM notifier.vanished AS o
                            WHERE o.xid < pg_snapshot_xmin(pg_current_snapshot())
                            LIMIT 2 * greatest(records, 1) FOR UPDATE SKIP LOCKED));
                    EXCEPTION WHEN serialization_failure THEN  -- deleted since the transaction's snapshot
                        NULL;
                    END;
                END IF;
                CONTINUE WHEN TG_OP = 'DELETE' AND steps[n + 5] !~ 'loose';
            ELSIF coalesce(from_company::text, 'null') = coalesce(to_company::text, 'null') THEN
                unmoved := ',"-> unmoved":true';
            END IF;
            seen := CASE WHEN current_setting('transaction_isolation') <> 'read committed'
                         THEN concat(',"->snapshot":', to_json(pg_current_snapshot()::text)) END;
            old_image := CASE WHEN was IS NOT NULL THEN concat('{', name, ':', coalesce(from_company, 'null'), unmoved, seen, '}')::json END;
            new_image := CASE WHEN became IS NOT NULL THEN concat('{', name, ':', coalesce(to_company, 'null'), unmoved, seen, '}')::json END;
            -- The rows that led here by a former key lead to no company now, and those that lead here now led to none.
            IF steps[n + 5] ~ 'loose' AND (was -> steps[n + 3])::text <> (became -> steps[n + 3])::text THEN
                PERFORM notifier.store_change(entity, old_image, NULL, true);
                old_image := NULL;
            END IF;
            PERFORM notifier.store_change(entity, old_image, new_image, true);
        EXCEPTION WHEN OTHERS THEN
            PERFORM notifier.store_change(entity, NULL, NULL, true);
        END;
    END LOOP;
    RETURN OLD;
END
$$;
