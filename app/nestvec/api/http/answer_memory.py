"""Memory for large answers, from their making until they are read: a few are made at a time, the others wait."""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from nestvec.errors import QueueFullError

# Key in a request's ASGI scope: how many bytes its answer was counted with.
ANSWER_BYTES: Final = "nestvec.answer_bytes"
# Smaller answers are not counted: most are.
FREE_BYTES: Final = 1024 * 1024
# How long an answer waits for its turn; then its caller may as well come again.
MAX_WAIT_S: Final = 10.0


@dataclass(slots=True)
class AnswerMemory:
    """Bounds the memory of large answers under way; for one event loop.

    Attributes:
        max_bytes: How much they may take together; one that takes more is made alone.
        held_bytes: How much they take now.
    """

    max_bytes: int
    held_bytes: int = 0
    _waiting: "deque[tuple[asyncio.Future[None], int]]" = field(default_factory=deque)

    async def take(self, count: int) -> None:
        """Wait until there is room for an answer, in the order of asking; `give` has to follow with the same number.

        Raises:
            QueueFullError: There was no room in time.
        """
        if not self._waiting and self._has_room(count):
            self.held_bytes += count
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, count))
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give(count)
            else:
                # Its turn may have come when it had just given up.
                with suppress(ValueError):
                    self._waiting.remove((turn, count))
                self._go_on()
            if isinstance(error, TimeoutError):
                raise QueueFullError(
                    "The server makes as many large answers as it may; retry later, or ask for less at once.",
                    retry_after_s=MAX_WAIT_S,
                ) from None
            raise

    def give(self, count: int) -> None:
        """Give back what an answer took, once it was sent or its caller is gone."""
        self.held_bytes -= count
        self._go_on()

    def _has_room(self, count: int) -> bool:
        return not self.held_bytes or self.held_bytes + count <= self.max_bytes

    def _go_on(self) -> None:
        """Let those go on for whom there is room now."""
        while self._waiting and self._has_room(self._waiting[0][1]):
            turn, count = self._waiting.popleft()
            if not turn.done():
                self.held_bytes += count
                turn.set_result(None)
