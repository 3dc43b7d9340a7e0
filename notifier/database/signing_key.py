"""The secret of the signatures, which is the row of a materialized view (revision 0019)."""

from __future__ import annotations

from notifier.database import sql
from notifier.database.connections import Connection


async def fill(connection: Connection) -> list[str]:
    """Makes a secret where a restore of parts of a dump has left the view without its row. Returns what was done."""
    filled = sql.adapt(
        "SELECT relispopulated FROM pg_class WHERE oid = 'notifier.signing_key'::regclass"
    )
    if await connection.fetchval(filled):
        return []
    await connection.execute(sql.adapt("REFRESH MATERIALIZED VIEW notifier.signing_key"))
    return ["the key of the signatures had no value: made one"]
