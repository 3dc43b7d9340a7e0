"""The columns that watches hide, by their numbers, which they keep when they are renamed."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        CREATE TABLE notifier.hidden_columns (
            relation  oid NOT NULL,
            name      text NOT NULL,      -- in the watch
            number    smallint NOT NULL,  -- of the column that had the name, as in pg_attribute
            excluded  boolean NOT NULL,   -- by `exclude`; otherwise it is one of `visible_to`
            database  text NOT NULL,      -- cluster and database: in another one the numbers mean nothing
            PRIMARY KEY (relation, name)
        );
        COMMENT ON TABLE notifier.hidden_columns IS
            'columns of exclude and visible_to: when one is renamed, another may take its name';
        """
    )


def downgrade() -> None:
    run("DROP TABLE notifier.hidden_columns")
