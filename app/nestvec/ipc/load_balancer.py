"""Cores of several devices behind one link: each call goes to the one that has least to do.

A call stays with its core where that dies, so that an input that kills engines is seen to by the one that it killed and
does not go through them all; only where that core stays away another takes the call.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nestvec.engine.core.ports import Traits
from nestvec.errors import NotReadyError
from nestvec.ipc.engine_client import Link, LinkLostError, Pushed, Told
from nestvec.ipc.frames import Frame


@dataclass(slots=True)
class Links:
    """Connections to the cores of several devices.

    Attributes:
        links: One to each.
    """

    links: Sequence[Link]
    _some_up: asyncio.Event = field(default_factory=asyncio.Event)
    _on_change: Told | None = None
    _under_way: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Hear of each that comes or goes."""
        for link in self.links:
            link.on_change = self._changed

    @property
    def is_up(self) -> bool:
        """Whether any core is there."""
        return any(link.is_up for link in self.links)

    def tell(self, on_change: Told, on_push: Pushed) -> None:
        """Who is told that a core has come or gone, and given what one says unasked."""
        self._on_change = on_change
        for link in self.links:
            link.on_push = on_push

    def start(self) -> None:
        """Connect to all."""
        for link in self.links:
            link.start()

    async def close(self) -> None:
        """Let go of all."""
        for link in self.links:
            await link.close()

    async def until_up(self, within_s: float) -> None:
        """Wait for any core.

        Raises:
            NotReadyError: None comes in time.
        """
        try:
            async with asyncio.timeout(within_s):
                await self._some_up.wait()
        except TimeoutError:
            raise NotReadyError("The engine is restarting.", retry_after_s=2.0) from None

    async def load(self, model: str) -> Traits:
        """Have a model loaded by every core that is there; those that come later load it when it is meant.

        Raises:
            NestvecError: It cannot be.
        """
        first = self._least_busy()
        others = [link for link in self.links if link.is_up and link is not first]
        traits = await first.load(model)
        await asyncio.gather(*(link.load(model) for link in others), return_exceptions=True)
        return traits

    async def ask(self, kind: str, **said: Any) -> Frame:  # noqa: ANN401 - JSON
        """The same of every core that is there; gives the first's answer.

        Raises:
            LinkLostError: None is there, or one went away.
            NestvecError: What one answers.
        """
        up = [link for link in self.links if link.is_up]
        if not up:
            raise LinkLostError
        answers = await asyncio.gather(*(link.ask(kind, **said) for link in up))
        return answers[0]

    def queue(self) -> tuple[float, float, float]:
        """Of the core that a call would go to; see `Flight.queue`."""
        return self._least_busy().queue()

    @contextmanager
    def chosen(self, tokens: int) -> Iterator[Link]:
        """The core for a call of so many tokens, which count as its until the call has ended."""
        link = self._least_busy()
        self._under_way[id(link)] = self._under_way.get(id(link), 0) + tokens
        try:
            yield link
        finally:
            self._under_way[id(link)] -= tokens

    def _least_busy(self) -> Link:
        """Of those that are there, by what all fronts have sent it and what this one has under way."""
        up = [link for link in self.links if link.is_up] or self.links
        return min(up, key=lambda link: link.queue()[0] + self._under_way.get(id(link), 0))

    def _changed(self) -> None:
        if self.is_up:
            self._some_up.set()
        else:
            self._some_up.clear()
        if self._on_change is not None:
            self._on_change()
