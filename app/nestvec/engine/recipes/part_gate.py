"""PartGate: the parts of a recipe are admitted together, by the tokens of all of them, before any is queued."""

import asyncio
from collections.abc import Awaitable, Callable

from nestvec.engine.limits import ServiceLimits
from nestvec.engine.types import EmbedCall


class PartGate:
    """Waits until each part's tokens are counted, then lets all of them pass or none.

    A caller's tokens are taken once, for all parts: a part that ran before another was refused would be work for
    nothing, and a key's quota could be overdrawn by as many calls as there are parts.

    Args:
        parts: How many parts there are.
        call: The caller's call.
        limits: Bounds on it.

    Attributes:
        refusal: Why the parts were refused; None while they were not.
    """

    def __init__(self, parts: int, call: EmbedCall, limits: ServiceLimits) -> None:
        self._missing = parts
        self._call, self._limits = call, limits
        self._tokens = 0
        self._opened = asyncio.Event()
        self.refusal: BaseException | None = None

    @property
    def admit(self) -> Callable[[int], Awaitable[None]]:
        """What the call of each part is admitted by."""
        return self._admit

    async def _admit(self, tokens: int) -> None:
        """Count a part's tokens, and wait for the other parts'.

        Raises:
            RequestTooLargeError: All parts together have more tokens than a call may.
            NestvecError: Whom the call is for may not have so many.
        """
        self._tokens += tokens
        self._missing -= 1
        if self._missing:
            await self._opened.wait()
            return
        try:
            self._limits.check_tokens(self._call, self._tokens)
            if self._call.admit is not None:
                await self._call.admit(self._tokens)
        except BaseException as error:
            # The others wait on, and are cancelled with the call.
            self.refusal = error
            raise
        self._opened.set()
