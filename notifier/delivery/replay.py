"""What a replay writes to one client."""

from __future__ import annotations

from notifier import metrics
from notifier.delivery.encoding import Chunk
from notifier.delivery.transport import Transport


class ReplayWriter:
    """Writes the chunks of a replay.

    A Skipped at the end of a page is held back until a message follows it, and a Skipped that follows replaces it: where a page ends
    depends on the sizes of all messages, those that the user may not see among them.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._held: Chunk | None = None

    async def write(self, chunk: Chunk, *, is_last: bool) -> None:
        """Writes a chunk and waits until the transport has room. `is_last`: nothing follows it in this replay. Raises TooSlow."""
        if chunk.is_end and not is_last:
            self._held = chunk
            return
        for each in [chunk] if self._held is None or chunk.is_covered else [self._held, chunk]:
            self._transport.write(each.frames, each.bodies)
            metrics.REPLAYED.inc(len(each.bodies))
        self._held = None
        await self._transport.drain()
        if is_last:
            self._transport.replayed()
