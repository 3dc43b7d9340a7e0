-- capture(entity, key, company [, excluded columns [, key columns [, paths]]]): stores the change of a watched row,
-- or the TRUNCATE of a watched table, in notifier.changes, in the application's transaction.
--
-- It must never break the application's write, except PREPARE TRANSACTION after a ring (decision 23). A row that
-- cannot be serialised is stored with its keys only; if not even these can be read, or they are very large, the change is
-- stored without images, and the relay sends every company a Resync. Only triggers that `notifier migrate` creates may call it:
-- EXECUTE is revoked from PUBLIC.
--
-- Output settings are pinned so that a value serialises identically in every session. With fewer digits of
-- floats two different values could compare equal, and the change would be dropped.
--
-- It runs with the rights of its owner, so no code of the application may run in it. row_to_json is used only
-- for relations whose columns all have plain types (`plain_relations`); the others have statements of their
-- own (`row_statements`). PostgreSQL calls both functions when it plans, for the relations that `migrate`
-- writes in place of :relations.
--
-- In a transaction of one row most of the time is spent on initialising expressions, not on evaluating them.
-- So there are few expressions, and a single condition guards everything that is rare.
-- Transaction id, time and `notifier.traceparent` are defaults of the columns, and so part of the INSERT.
--
-- `:full_mark`, `:doorbell_lock` and `:table_bit` are FULL_MARK, DOORBELL_LOCK and TABLE_BIT of
-- notifier/database/constants.py; database/sql.py puts them in when it loads the text.
CREATE OR REPLACE FUNCTION notifier.capture() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET extra_float_digits = 1
SET datestyle = 'ISO' SET intervalstyle = 'postgres' SET bytea_output = 'hex'
AS $$
DECLARE
    full_mark CONSTANT bigint := :full_mark;  -- ids from here on: the log is full, nothing is stored
    change bigint;
    was json;
    became json;
    is_partial boolean := false;
    unreadable CONSTANT int := 2147482623;             -- for a size: 2^31 - 1025, so that 1024 + size does not overflow
    size int;
    members text;
    images json[];
BEGIN
    BEGIN
        was := CASE WHEN coalesce(pg_partition_root(TG_RELID), TG_RELID) = ANY (notifier.plain_relations(:relations))
                    THEN row_to_json(OLD)
                    ELSE notifier.row_image(OLD, TG_RELID, notifier.row_statements(:relations)) END;
        became := CASE WHEN coalesce(pg_partition_root(TG_RELID), TG_RELID) = ANY (notifier.plain_relations(:relations))
                       THEN row_to_json(NEW)
                       ELSE notifier.row_image(NEW, TG_RELID, notifier.row_statements(:relations)) END;
        size := octet_length(concat(was, became));
    EXCEPTION WHEN OTHERS THEN
        size := unreadable;
    END;

    -- The relay holds this lock only while it sleeps. Then this writer must ring. `= full_mark`: no id is drawn yet, the
    -- block below rings first; `> full_mark`: the log is full.
    change := CASE WHEN pg_try_advisory_xact_lock_shared(:doorbell_lock) THEN nextval('notifier.change_ids')
                   ELSE full_mark END;

    -- The room in the log is checked about every 2 MiB of changes: by every n-th id, where n rows of this size
    -- are 2 MiB.
    IF TG_NARGS > 3 OR change >= full_mark OR change % greatest(1, 2097152 / (1024 + size)) = 0
       OR was::text = became::text THEN
        IF was::text = became::text OR size > 2097152 OR TG_ARGV[3] <> '{}' THEN
            IF TG_ARGV[3] <> '{}' AND size < unreadable THEN
                BEGIN
                    IF EXISTS (  -- the cache has the names of the row, also where the transaction's snapshot is older
                        SELECT FROM notifier.hidden_columns AS h,
                                    pg_identify_object_as_address(to_regclass('pg_class'), h.relation, h.number) AS now
                        WHERE h.relation = ANY (ARRAY(SELECT TG_RELID UNION ALL SELECT relid FROM pg_partition_ancestors(TG_RELID)))
                          AND h.name = ANY (TG_ARGV[3]::text[]) AND now.object_names[3] <> h.name
                          AND has_column_privilege(h.relation, h.number, 'SELECT') IS NOT NULL  -- null: it was dropped
                    ) THEN
                        RAISE undefined_column;
                    END IF;
                    was := notifier.strip_columns(was, TG_ARGV[3]::text[]);
                    became := notifier.strip_columns(became, TG_ARGV[3]::text[]);
                    size := octet_length(concat(was, became));
                EXCEPTION WHEN OTHERS THEN
                    size := unreadable;
                END;
            END IF;
            IF was::text = became::text THEN
                RETURN NULL;
            END IF;
            IF size > 2097152 THEN
                is_partial := true;
                BEGIN
                    was := notifier.keys(OLD, TG_RELID, coalesce(TG_ARGV[4]::text[], ARRAY[TG_ARGV[1], TG_ARGV[2]]));
                    became := notifier.keys(NEW, TG_RELID, coalesce(TG_ARGV[4]::text[], ARRAY[TG_ARGV[1], TG_ARGV[2]]));
                    IF octet_length(concat(was, became)) > 8388608 THEN  -- the relay reads larger ones with difficulty, or not at all
                        RAISE program_limit_exceeded;
                    END IF;
                EXCEPTION WHEN OTHERS THEN
                    was := NULL;
                    became := NULL;
                END;
            END IF;
        END IF;
        -- The companies that paths lead to stand first in both images: less is copied than if they stood last.
        IF TG_NARGS > 5 THEN
            BEGIN
                members := notifier.path_members(TG_ARGV[0], was, became);
                IF coalesce(octet_length(members) > 65536, true) THEN
                    images := notifier.path_images(was, became, TG_ARGV[5]::text[]);
                    was := images[1];
                    became := images[2];
                    size := octet_length(concat(was, became));
                    IF size > 8388608 THEN
                        RAISE program_limit_exceeded;
                    END IF;
                ELSE
                    was := (members || right(was::text, -1))::json;
                    became := (members || right(became::text, -1))::json;
                END IF;
            -- `path_members` fails at an escape of NUL, or of a character beyond the encoding, anywhere in a row; the last
            -- error is that of PostgreSQL 14 and 15 in SQL_ASCII.
            EXCEPTION WHEN untranslatable_character OR invalid_text_representation OR feature_not_supported THEN
                BEGIN
                    images := notifier.path_images(was, became, TG_ARGV[5]::text[]);
                    was := images[1];
                    became := images[2];
                    size := octet_length(concat(was, became));
                    IF size > 8388608 THEN
                        RAISE program_limit_exceeded;
                    END IF;
                EXCEPTION WHEN OTHERS THEN
                    was := NULL;
                    became := NULL;
                    is_partial := true;
                END;
            WHEN OTHERS THEN
                was := NULL;
                became := NULL;
                is_partial := true;
            END;
        END IF;
        IF change >= full_mark OR change % greatest(1, 2097152 / (1024 + size)) = 0 THEN
            IF change = full_mark THEN
                -- The doorbell. Not into a queue that is nearly full: it would fail the application's commit.
                IF pg_notification_queue_usage() < 0.9 THEN
                    PERFORM pg_notify('notifier_changes', '');
                END IF;
                change := nextval('notifier.change_ids');
            END IF;
            IF change >= full_mark THEN
                RETURN NULL;
            END IF;
            -- Bounds the disk while no relay runs.
            IF change % greatest(1, 2097152 / (1024 + size)) = 0
               AND notifier.is_full()
               AND notifier.lock_sequence() THEN  -- not while the relay sets the sequence
                -- Not from `change`: `rotate_changes` may have set the sequence further since it was drawn.
                PERFORM setval('notifier.change_ids', full_mark + last_value)
                FROM notifier.change_ids WHERE last_value < full_mark;
                RETURN NULL;
            END IF;
        END IF;
    END IF;

    IF (change >> :table_bit) & 1 = 0 THEN
        INSERT INTO notifier.changes_0 (id, entity, old, new, partial, actor)
        VALUES (change, TG_ARGV[0], was, became, is_partial,
                nullif(left(current_setting('notifier.actor', true), 10000), ''));
    ELSE
        INSERT INTO notifier.changes_1 (id, entity, old, new, partial, actor)
        VALUES (change, TG_ARGV[0], was, became, is_partial,
                nullif(left(current_setting('notifier.actor', true), 10000), ''));
    END IF;
    RETURN NULL;
END
$$;
