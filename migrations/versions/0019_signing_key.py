"""The secret of the signatures is the row of a materialized view, which a dump defines and does not hold."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        DROP TABLE notifier.signing_key;
        CREATE MATERIALIZED VIEW notifier.signing_key AS
        SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) AS secret;
        COMMENT ON MATERIALIZED VIEW notifier.signing_key IS
            'one row: a random value, 244 bits; a dump does not have it, and REFRESH replaces it';
        """
    )


def downgrade() -> None:
    run(
        """
        DROP MATERIALIZED VIEW notifier.signing_key;
        CREATE TABLE notifier.signing_key (
            only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
            secret    bytea NOT NULL
        );
        INSERT INTO notifier.signing_key (secret)
        SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
        """
    )
