-- capture(entity, key, company [, excluded columns]): writes the change of a watched row, or the
-- TRUNCATE of a watched table, to notifier.changes, in the app's own transaction.
--
-- It must never break the app's write. What cannot be serialised is stored with its keys only; what
-- has not even keys is stored as a bare change, and the relay tells everybody to read afresh.
-- Nobody may call it but triggers that `notifier migrate` made: EXECUTE is revoked from PUBLIC.
CREATE OR REPLACE FUNCTION notifier.capture() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    full_mark CONSTANT bigint := 4611686018427387904;  -- 2^62: from here on nothing is stored
    row_limit CONSTANT int := 262144;                  -- bytes of one row's image
    change bigint;
    was json;
    became json;
    is_partial boolean := false;
    size int;
BEGIN
    -- The doorbell. The relay holds this lock only while it sleeps; awake, it needs no ring.
    IF NOT pg_try_advisory_xact_lock_shared(7815279001) THEN
        PERFORM pg_notify('notifier_changes', '');
    END IF;

    change := nextval('notifier.change_ids');
    IF change >= full_mark THEN
        RETURN NULL;
    END IF;

    IF TG_LEVEL = 'ROW' THEN
        BEGIN
            was := row_to_json(OLD);
            became := row_to_json(NEW);
            IF TG_NARGS > 3 THEN
                was := notifier.without(was, TG_ARGV[3]::text[]);
                became := notifier.without(became, TG_ARGV[3]::text[]);
                IF was::text = became::text THEN
                    RETURN NULL;
                END IF;
            END IF;
            is_partial := coalesce(greatest(pg_column_size(was), pg_column_size(became)) > row_limit, false);
        EXCEPTION WHEN OTHERS THEN
            is_partial := true;
        END;
        IF is_partial THEN
            BEGIN
                was := notifier.keys(OLD, TG_ARGV[1], TG_ARGV[2]);
                became := notifier.keys(NEW, TG_ARGV[1], TG_ARGV[2]);
            EXCEPTION WHEN OTHERS THEN
                was := NULL;
                became := NULL;
            END;
        END IF;
    END IF;

    size := coalesce(pg_column_size(was), 0) + coalesce(pg_column_size(became), 0);

    -- About every 2 MiB the size is looked at, so that the disk stays bounded when nobody drains.
    IF change % greatest(1, 2097152 / (1024 + size)) = 0
       AND notifier.is_full()
       AND pg_try_advisory_xact_lock_shared(7815279003) THEN  -- not while the relay sets the sequence
        PERFORM setval('notifier.change_ids', full_mark + change);
        RETURN NULL;
    END IF;

    IF (change >> 32) & 1 = 0 THEN
        INSERT INTO notifier.changes_0 (id, entity, operation, old, new, partial, size, actor)
        VALUES (change, TG_ARGV[0], left(TG_OP, 1)::"char", was, became, is_partial, size,
                nullif(current_setting('notifier.actor', true), ''));
    ELSE
        INSERT INTO notifier.changes_1 (id, entity, operation, old, new, partial, size, actor)
        VALUES (change, TG_ARGV[0], left(TG_OP, 1)::"char", was, became, is_partial, size,
                nullif(current_setting('notifier.actor', true), ''));
    END IF;
    RETURN NULL;
END
$$;
