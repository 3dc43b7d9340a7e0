"""A schema per tenant."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        CREATE TABLE notifier.patterns (name text PRIMARY KEY, watch json NOT NULL);
        COMMENT ON TABLE notifier.patterns IS
            'watches of tables in a schema per tenant; each table that was found is in notifier.watches';
        ALTER TABLE notifier.watches ALTER COLUMN company DROP NOT NULL;
        ALTER TABLE notifier.watches ADD COLUMN tenant text;
        COMMENT ON COLUMN notifier.watches.tenant IS
            'the schema, whose name is the company of all its rows; null: the column company names it';
        ALTER TABLE notifier.configuration ADD COLUMN version bigint NOT NULL DEFAULT 0;
        COMMENT ON COLUMN notifier.configuration.version IS 'another one after each change of notifier.watches';
        ALTER TABLE notifier.configuration ADD COLUMN forget boolean NOT NULL DEFAULT false;
        COMMENT ON COLUMN notifier.configuration.forget IS
            'migrate was interrupted before it emptied the log, which holds values that are excluded now';
        """
    )


def downgrade() -> None:
    run(
        """
        DELETE FROM notifier.watches WHERE tenant IS NOT NULL;
        ALTER TABLE notifier.watches DROP COLUMN tenant;
        ALTER TABLE notifier.watches ALTER COLUMN company SET NOT NULL;
        DROP TABLE notifier.patterns;
        ALTER TABLE notifier.configuration DROP COLUMN version;
        ALTER TABLE notifier.configuration DROP COLUMN forget;
        """
    )
