-- Stores a change that does not describe a row of a watched table: a row on a path now leads to another company, or
-- every company must reload its state, as where the companies are too large to be read. Rings the doorbell as `capture` does.
CREATE OR REPLACE FUNCTION notifier.store_change(entity text, was json, became json, is_partial boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    full_mark CONSTANT bigint := :full_mark;
    change bigint;
BEGIN
    IF octet_length(concat(was, became)) > 8388608 THEN  -- as in `capture`
        was := NULL;
        became := NULL;
        is_partial := true;
    END IF;
    IF NOT pg_try_advisory_xact_lock_shared(:doorbell_lock) AND pg_notification_queue_usage() < 0.9 THEN
        PERFORM pg_notify('notifier_changes', '');
    END IF;
    change := nextval('notifier.change_ids');
    IF change >= full_mark THEN
        RETURN;
    END IF;
    IF change % greatest(1, 2097152 / (1024 + octet_length(concat(was, became)))) = 0 AND notifier.is_full() AND notifier.lock_sequence() THEN
        PERFORM setval('notifier.change_ids', full_mark + last_value)
        FROM notifier.change_ids WHERE last_value < full_mark;
        RETURN;
    END IF;
    IF (change >> :table_bit) & 1 = 0 THEN
        INSERT INTO notifier.changes_0 (id, entity, old, new, partial, actor)
        VALUES (change, entity, was, became, is_partial,
                nullif(left(current_setting('notifier.actor', true), 10000), ''));
    ELSE
        INSERT INTO notifier.changes_1 (id, entity, old, new, partial, actor)
        VALUES (change, entity, was, became, is_partial,
                nullif(left(current_setting('notifier.actor', true), 10000), ''));
    END IF;
END
$$;
