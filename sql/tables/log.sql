-- Frozen at revision 0001, later revisions alter it. The log: captured changes, stored messages, and how far
-- the relay has come.
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
-- dead rows, whatever snapshots are held. Bit 32 of the id chooses; `sql/functions/capture.sql` writes.
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

-- Messages, numbered per company. A ring of eight slots; the oldest is emptied by TRUNCATE.
CREATE TABLE notifier.messages (
    slot      smallint NOT NULL,
    seq       bigint NOT NULL,             -- orders all messages, for the nodes
    company   text NOT NULL,
    position  bigint NOT NULL,             -- 1, 2, 3, ... within the company and the epoch
    at        timestamptz NOT NULL,        -- when its change was made
    stored    timestamptz NOT NULL DEFAULT clock_timestamp(),
    body      json NOT NULL,               -- as it is sent
    revokes   text[],                      -- users who may lose the company with it; '*': any
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

-- One row: the log's name and the relay's checkpoint. The cursor of the last message is the newer one if
-- its seq is greater.
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
