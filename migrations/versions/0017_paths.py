"""Companies that are found along foreign keys."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        ALTER TABLE notifier.watches ADD COLUMN path text;
        COMMENT ON COLUMN notifier.watches.path IS
            'from a column along foreign keys to the company, which capture adds to the row as column `company`';
        CREATE TABLE notifier.steps (
            watch     text NOT NULL,
            step      int NOT NULL,       -- 0: the watched table; from 1 on: those along the path
            relation  text NOT NULL,      -- schema-qualified, as regclass prints it
            key       text,               -- the column that the step before leads to; null in step 0
            value     text NOT NULL,      -- the column that leads on: to the next table, at last to the company
            enforced  boolean NOT NULL,   -- an immediate foreign key leads here, so that the row exists
            PRIMARY KEY (watch, step)
        );
        COMMENT ON TABLE notifier.steps IS 'the paths of watches, step by step';
        CREATE TABLE notifier.moves (
            only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
            moves     json NOT NULL DEFAULT '[]'
        );
        INSERT INTO notifier.moves DEFAULT VALUES;
        COMMENT ON TABLE notifier.moves IS
            'one row: rows on paths that changed while transactions were open which may not have seen it';
        CREATE UNLOGGED TABLE notifier.vanished (
            xid      xid8 NOT NULL DEFAULT pg_current_xact_id(),
            since    timestamptz NOT NULL DEFAULT transaction_timestamp(),
            watch    text NOT NULL,
            step     int NOT NULL,
            key      text NOT NULL,
            company  json NOT NULL
        );
        CREATE INDEX ON notifier.vanished (xid, key);
        COMMENT ON TABLE notifier.vanished IS
            'the companies of rows along paths that a transaction deletes, until it ends: their children are captured later';
        """
    )


def downgrade() -> None:
    # Not without the path: there is no such column.
    run(
        """
        DELETE FROM notifier.watches WHERE path IS NOT NULL;
        ALTER TABLE notifier.watches DROP COLUMN path;
        DROP TABLE notifier.steps, notifier.moves, notifier.vanished;
        """
    )
