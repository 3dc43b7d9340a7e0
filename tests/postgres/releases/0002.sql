-- The schema `notifier` as the first release (revision 0002) made it over the calendar's tables, for tests of
-- upgrades. Made from that release's files; never to be edited.

CREATE SCHEMA notifier;
CREATE TABLE notifier.version (version_num varchar(32) NOT NULL, CONSTRAINT version_pkc PRIMARY KEY (version_num));
INSERT INTO notifier.version VALUES ('0002');

-- The log: what was captured, what was said, and how far the relay has come.
-- Everything of the notifier's lives in this schema; `notifier uninstall` drops it.

REVOKE ALL ON SCHEMA notifier FROM PUBLIC;

-- Which tables are watched, and what their messages are called. Written by `notifier migrate`.
CREATE TABLE notifier.watches (
    entity      text PRIMARY KEY,
    relation    text NOT NULL,             -- schema-qualified, as regclass prints it
    key         text NOT NULL,             -- the column that names a row
    company     text NOT NULL,             -- the column that names its company
    member      text,                      -- the column that names a user whom the row gives access
    exclude     text[] NOT NULL DEFAULT '{}',
    created     text,                      -- names of the messages; null: none is sent
    updated     text,
    deleted     text
);

-- One row: what capture must know of the configuration. Written by `notifier migrate`.
CREATE TABLE notifier.configuration (
    only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    max_log_bytes  bigint NOT NULL,
    membership     text                    -- the table that the default membership query reads
);

-- Changes wait in one of two tables, by turns, so that the consumed one is emptied by TRUNCATE: no
-- dead rows, whatever snapshot somebody holds. Bit 32 of the id chooses; `sql/capture.sql` writes.
CREATE SEQUENCE notifier.change_ids AS bigint CACHE 1;

CREATE TABLE notifier.changes_0 (
    id         bigint NOT NULL,
    xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
    entity     text NOT NULL,
    old        json,                       -- the row before; null: there was none
    new        json,                       -- the row after; null: there is none; neither: a TRUNCATE
    partial    boolean NOT NULL,           -- only key and company are in them, or even they are lacking
    actor      text,
    at         timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_enabled = false);
CREATE TABLE notifier.changes_1 (LIKE notifier.changes_0 INCLUDING DEFAULTS) WITH (autovacuum_enabled = false);
CREATE INDEX ON notifier.changes_0 (xid);
CREATE INDEX ON notifier.changes_1 (xid);

-- What was said, numbered per company. A ring of eight slots; the oldest is emptied by TRUNCATE.
CREATE TABLE notifier.messages (
    slot      smallint NOT NULL,
    seq       bigint NOT NULL,             -- orders all messages, for the nodes
    company   text NOT NULL,
    position  bigint NOT NULL,             -- 1, 2, 3, ... within the company and the epoch
    at        timestamptz NOT NULL,        -- when its change was made
    stored    timestamptz NOT NULL DEFAULT clock_timestamp(),
    body      json NOT NULL,               -- as it is sent
    revokes   text[],                      -- users who lose the company with it; '*': ask for each
    cursor    text                         -- on a batch's last message: the relay has read so far
) PARTITION BY LIST (slot);

DO $$
BEGIN
    FOR slot IN 0..7 LOOP
        EXECUTE format('CREATE TABLE notifier.messages_%s PARTITION OF notifier.messages FOR VALUES IN (%s)
                        WITH (autovacuum_enabled = false)', slot, slot);
        EXECUTE format('CREATE UNIQUE INDEX ON notifier.messages_%s (seq)', slot);
        EXECUTE format('CREATE UNIQUE INDEX ON notifier.messages_%s (company, position)', slot);
    END LOOP;
END $$;

-- The companies that the log knows, with the last position of those whose messages are gone.
CREATE TABLE notifier.positions (
    company   text PRIMARY KEY,
    position  bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);

-- One row: the log's name and the relay's place in it. The last message's `cursor` is newer than this
-- one if its seq is greater.
CREATE TABLE notifier.log (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch        text NOT NULL,
    epoch_seq    bigint NOT NULL DEFAULT 0,    -- seq before the epoch's first message
    system       text NOT NULL,                -- system identifier and timeline: another one, another epoch
    seq          bigint NOT NULL DEFAULT 0,
    cursor       text NOT NULL,                -- a pg_snapshot: what it sees was read
    target       text,                         -- while a backlog is read in pages: up to this snapshot,
    upto         bigint,                       -- and of that, transactions whose last id is at most this
    slot         smallint NOT NULL DEFAULT 0,  -- messages are written to this one,
    slot_since   timestamptz NOT NULL DEFAULT clock_timestamp(),
    unsettled    xid8                          -- changes of transactions before this one may have been dropped
);

-- Which history of which cluster this is: a failover or a restored backup answers otherwise.
CREATE OR REPLACE FUNCTION notifier.system() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.system_identifier || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
           || '/' || d.oid
    FROM pg_control_system() AS s, pg_database AS d WHERE d.datname = current_database()
$$;


INSERT INTO notifier.configuration (max_log_bytes) VALUES (1073741824);
INSERT INTO notifier.log (epoch, system, cursor)
VALUES (substr(md5(gen_random_uuid()::text), 1, 12), notifier.system(), pg_current_snapshot());

-- Both tables of changes; `size`: the bytes of both images before compression.
CREATE VIEW notifier.changes AS
SELECT *, coalesce(octet_length(old::text), 0) + coalesce(octet_length(new::text), 0) AS size
FROM (SELECT * FROM notifier.changes_0 UNION ALL SELECT * FROM notifier.changes_1) AS change;
-- Bytes on disk of changes and messages together, indexes and TOAST included.
CREATE OR REPLACE FUNCTION notifier.log_bytes() RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT sum(pg_total_relation_size(relation))::bigint
    FROM unnest('{notifier.changes_0, notifier.changes_1,
                  notifier.messages_0, notifier.messages_1, notifier.messages_2, notifier.messages_3,
                  notifier.messages_4, notifier.messages_5, notifier.messages_6, notifier.messages_7
                 }'::regclass[]) AS relation
$$;
-- Whether changes wait for more than their half of max_log_bytes; the relay keeps messages to the other.
CREATE OR REPLACE FUNCTION notifier.is_full() RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT pg_total_relation_size('notifier.changes_0') + pg_total_relation_size('notifier.changes_1')
               > max_log_bytes / 2
        FROM notifier.configuration
    );
EXCEPTION WHEN lock_not_available THEN  -- one is being emptied, and the app's lock_timeout is short
    RETURN false;
END
$$;
-- A row's image without the excluded columns: they are never stored.
CREATE OR REPLACE FUNCTION notifier.without(image json, excluded text[]) RETURNS json
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
    SELECT json_object_agg(pair.key, pair.value)
    FROM json_each(image) AS pair
    WHERE pair.key <> ALL (excluded)
$$;
-- Of a row that cannot be serialised: its key and its company. Null for no row.
CREATE OR REPLACE FUNCTION notifier.keys(row_image record, key text, company text) RETURNS json
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    keys json;
BEGIN
    IF row_image IS NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE format('SELECT json_build_object(%L, ($1).%I, %L, ($1).%I)', key, key, company, company)
    INTO keys USING row_image;
    RETURN keys;
END
$$;
-- A row's image in which `->` has found, or may find, what it refuses: escapes of NUL and of halves of a
-- surrogate are left out. Null where its brackets in brackets are beyond max_stack_depth.
CREATE OR REPLACE FUNCTION notifier.mended(image json) RETURNS json
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF image::text ~* '\\u(0000|d[89a-f])' THEN
        image := regexp_replace(image::text, '(\\[^u])|\\u(?:0000|d[89a-f]..)', '\1', 'gi')::json;
    END IF;
    PERFORM image -> '';
    RETURN image;
EXCEPTION WHEN statement_too_complex THEN
    RETURN NULL;
END
$$;
-- A row's image that `->` can read: it refuses the whole for a NUL or half a surrogate anywhere in it.
-- Nearly always there is no such escape, and too little text for brackets that exhaust a stack. A million
-- rows ask: so it is read where it is made, whatever the search_path is then, and put in place of its call.
CREATE OR REPLACE FUNCTION notifier.readable(image json) RETURNS json
LANGUAGE sql IMMUTABLE
RETURN CASE WHEN octet_length(image::text) <= 1000 AND strpos(image::text, '\u') = 0 THEN image
            ELSE notifier.mended(image) END;
-- capture(entity, key, company [, excluded columns]): writes the change of a watched row, or the
-- TRUNCATE of a watched table, to notifier.changes, in the app's own transaction.
--
-- It must never break the app's write. What cannot be serialised is stored with its keys only; what
-- has not even keys is stored as a bare change, and the relay tells everybody to read afresh.
-- Nobody may call it but triggers that `notifier migrate` made: EXECUTE is revoked from PUBLIC.
--
-- A value looks the same whoever writes it; with fewer digits of floats two of them could be one.
--
-- In a transaction of one row most of its time goes into the making of expressions, not into what they
-- do. So there are few, and one of them tells whether anything but the INSERT is to be done.
CREATE OR REPLACE FUNCTION notifier.capture() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET extra_float_digits = 1
SET datestyle = 'ISO' SET intervalstyle = 'postgres' SET bytea_output = 'hex'
AS $$
DECLARE
    full_mark CONSTANT bigint := 4611686018427387904;  -- 2^62: from here on nothing is stored
    change bigint;
    was json;
    became json;
    is_partial boolean := false;
    unreadable CONSTANT int := 2147482623;             -- for a size: 2^31 - 1025
    size int;
BEGIN
    BEGIN
        was := row_to_json(OLD);
        became := row_to_json(NEW);
        size := octet_length(concat(was, became));
    EXCEPTION WHEN OTHERS THEN
        size := unreadable;
    END;

    -- The relay holds this lock only while it sleeps; awake, it needs no ring.
    change := CASE WHEN pg_try_advisory_xact_lock_shared(7815279001) THEN nextval('notifier.change_ids')
                   ELSE full_mark END;

    -- About every 2 MiB, and with every image of that size, there is more to do.
    IF change >= full_mark OR change % greatest(1, 2097152 / (1024 + size)) = 0
       OR was::text = became::text OR TG_NARGS > 3 THEN
        IF TG_NARGS > 3 AND size < unreadable THEN
            BEGIN
                was := notifier.without(was, TG_ARGV[3]::text[]);
                became := notifier.without(became, TG_ARGV[3]::text[]);
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
                was := notifier.keys(OLD, TG_ARGV[1], TG_ARGV[2]);
                became := notifier.keys(NEW, TG_ARGV[1], TG_ARGV[2]);
            EXCEPTION WHEN OTHERS THEN
                was := NULL;
                became := NULL;
            END;
        END IF;
        IF change = full_mark THEN
            PERFORM pg_notify('notifier_changes', '');  -- the doorbell
            change := nextval('notifier.change_ids');
        END IF;
        IF change >= full_mark THEN
            RETURN NULL;
        END IF;
        -- The disk stays bounded when nobody drains.
        IF change % greatest(1, 2097152 / (1024 + size)) = 0
           AND notifier.is_full()
           AND pg_try_advisory_xact_lock_shared(7815279003) THEN  -- not while the relay sets the sequence
            PERFORM setval('notifier.change_ids', full_mark + last_value)  -- `change` may be an older one
            FROM notifier.change_ids WHERE last_value < full_mark;
            RETURN NULL;
        END IF;
    END IF;

    IF (change >> 32) & 1 = 0 THEN
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
-- Empties a table of changes, $1, unless a transaction in flight has written to it or it holds what the
-- snapshot $2 does not see; the relay's place, $2 and $3, is kept with it. Says whether it is empty.
--
-- One call: the app's writers ask for the table's size, and would wait for a relay that froze between
-- the lock and the end of its transaction.
CREATE OR REPLACE FUNCTION notifier.empty(which int, read_so_far text, last_seq bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation CONSTANT text := format('notifier.changes_%s', which);
    unread boolean;
BEGIN
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', relation);
    -- Each statement has a snapshot of its own: this one sees what was committed before the lock.
    EXECUTE format('SELECT EXISTS (SELECT FROM %1$s WHERE xid >= pg_snapshot_xmax($1))
                        OR EXISTS (SELECT FROM %1$s WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1))))',
                   relation)
    INTO unread USING read_so_far::pg_snapshot;
    IF unread THEN
        RETURN false;
    END IF;
    UPDATE notifier.log SET cursor = read_so_far, seq = last_seq;
    EXECUTE format('TRUNCATE %s', relation);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;
-- From now on changes go to the other table. Says whether it turned: not while capture says that the
-- log is full, or an overflow would go unsaid. One call: no relay freezes in the middle of it.
CREATE OR REPLACE FUNCTION notifier.turn() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(7815279003) THEN
        RETURN false;
    END IF;
    PERFORM setval('notifier.change_ids', ((last_value >> 32) + 1) << 32)
    FROM notifier.change_ids WHERE last_value < 4611686018427387904;
    RETURN FOUND;
END
$$;
-- After an overflow: empties the tables of changes that nobody writes to, read or not, and lets capture
-- store again. Returns the transaction id before which all must have ended until everything that was
-- dropped has come to light; null where none is in flight. One call: see sql/empty.sql.
--
-- It does not wait for the lock under which capture says that the log is full: whoever holds it may stay
-- in flight for long. If one says so just now and is overwritten, its transaction is in flight, and is
-- told of when it has ended.
CREATE OR REPLACE FUNCTION notifier.reopen() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    full_mark CONSTANT bigint := 4611686018427387904;
    margin CONSTANT bigint := 1048576;     -- ids go on growing
    present pg_snapshot;
BEGIN
    FOR which IN 0..1 LOOP
        BEGIN
            EXECUTE format('LOCK TABLE notifier.changes_%s IN ACCESS EXCLUSIVE MODE NOWAIT', which);
            EXECUTE format('TRUNCATE notifier.changes_%s', which);
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    PERFORM setval('notifier.change_ids', last_value - full_mark + margin)
    FROM notifier.change_ids WHERE last_value >= full_mark;
    present := pg_current_snapshot();
    IF EXISTS (SELECT FROM pg_snapshot_xip(present)) THEN  -- its xmin may be our own
        RETURN pg_snapshot_xmax(present)::text::bigint;
    END IF;
    RETURN NULL;
END
$$;
-- Empties a slot of messages and turns to it; its companies keep their positions, and the relay its place.
-- Returns since when the slot is written to; null: somebody reads its messages. One call: no node waits
-- for a relay that froze in the middle of it.
CREATE OR REPLACE FUNCTION notifier.prune(slot_next int, read_so_far text, last_seq bigint) RETURNS timestamptz
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms'
AS $$
DECLARE
    since timestamptz;
BEGIN
    EXECUTE format('INSERT INTO notifier.positions AS p (company, position)
                    SELECT company, max(position) FROM notifier.messages_%s GROUP BY company
                    ON CONFLICT (company) DO UPDATE SET position = greatest(p.position, excluded.position)',
                   slot_next);
    EXECUTE format('TRUNCATE notifier.messages_%s', slot_next);
    UPDATE notifier.log
    SET slot = slot_next, slot_since = clock_timestamp(), cursor = read_so_far, seq = last_seq
    RETURNING slot_since INTO since;
    RETURN since;
EXCEPTION WHEN lock_not_available THEN
    RETURN NULL;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA notifier FROM PUBLIC;

INSERT INTO notifier.watches VALUES
    ('Event', 'public.events', 'id', 'company_id', NULL, '{}', 'EventCreated', 'EventUpdated', 'EventDeleted'),
    ('Employee', 'public.employees', 'id', 'company_id', 'user_id', '{}', 'EmployeeAdded', 'EmployeeUpdated', 'EmployeeRemoved'),
    ('Company', 'public.companies', 'id', 'id', NULL, '{}', NULL, 'CompanyUpdated', 'CompanyDeleted');

CREATE TRIGGER notifier_capture AFTER INSERT OR UPDATE OR DELETE ON public.events FOR EACH ROW EXECUTE FUNCTION notifier.capture('Event', 'id', 'company_id');
COMMENT ON TRIGGER notifier_capture ON public.events IS 'CREATE TRIGGER notifier_capture AFTER INSERT OR UPDATE OR DELETE ON public.events FOR EACH ROW EXECUTE FUNCTION notifier.capture(''Event'', ''id'', ''company_id'')';
CREATE TRIGGER notifier_capture_truncate AFTER TRUNCATE ON public.events FOR EACH STATEMENT EXECUTE FUNCTION notifier.capture('Event', 'id', 'company_id');
COMMENT ON TRIGGER notifier_capture_truncate ON public.events IS 'CREATE TRIGGER notifier_capture_truncate AFTER TRUNCATE ON public.events FOR EACH STATEMENT EXECUTE FUNCTION notifier.capture(''Event'', ''id'', ''company_id'')';
CREATE TRIGGER notifier_capture AFTER INSERT OR UPDATE OR DELETE ON public.employees FOR EACH ROW EXECUTE FUNCTION notifier.capture('Employee', 'id', 'company_id');
COMMENT ON TRIGGER notifier_capture ON public.employees IS 'CREATE TRIGGER notifier_capture AFTER INSERT OR UPDATE OR DELETE ON public.employees FOR EACH ROW EXECUTE FUNCTION notifier.capture(''Employee'', ''id'', ''company_id'')';
CREATE TRIGGER notifier_capture_truncate AFTER TRUNCATE ON public.employees FOR EACH STATEMENT EXECUTE FUNCTION notifier.capture('Employee', 'id', 'company_id');
COMMENT ON TRIGGER notifier_capture_truncate ON public.employees IS 'CREATE TRIGGER notifier_capture_truncate AFTER TRUNCATE ON public.employees FOR EACH STATEMENT EXECUTE FUNCTION notifier.capture(''Employee'', ''id'', ''company_id'')';
CREATE TRIGGER notifier_capture AFTER INSERT OR UPDATE OR DELETE ON public.companies FOR EACH ROW EXECUTE FUNCTION notifier.capture('Company', 'id', 'id');
COMMENT ON TRIGGER notifier_capture ON public.companies IS 'CREATE TRIGGER notifier_capture AFTER INSERT OR UPDATE OR DELETE ON public.companies FOR EACH ROW EXECUTE FUNCTION notifier.capture(''Company'', ''id'', ''id'')';
CREATE TRIGGER notifier_capture_truncate AFTER TRUNCATE ON public.companies FOR EACH STATEMENT EXECUTE FUNCTION notifier.capture('Company', 'id', 'id');
COMMENT ON TRIGGER notifier_capture_truncate ON public.companies IS 'CREATE TRIGGER notifier_capture_truncate AFTER TRUNCATE ON public.companies FOR EACH STATEMENT EXECUTE FUNCTION notifier.capture(''Company'', ''id'', ''id'')';
