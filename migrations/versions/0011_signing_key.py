"""The key by which the relay signs what it publishes to a broker."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        CREATE TABLE notifier.signing_key (
            only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
            secret    bytea NOT NULL   -- from PostgreSQL's strong random numbers, 244 bits
        );
        INSERT INTO notifier.signing_key (secret)
        SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
        """
    )


def downgrade() -> None:
    run("DROP TABLE notifier.signing_key")
