"""What the models of one process take from each other: their workers run on the same cores. Pure.

Models come and go in one thread while others look; a list's `append` and `remove` are whole by themselves.
"""

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class CoresShare:
    """What one model has to do; written under its queue's lock, read by the other models' without.

    Attributes:
        waiting_s: Seconds that its queue would take alone.
        busy: Number of its workers that run a batch.
    """

    waiting_s: float = 0.0
    busy: int = 0


@dataclass(slots=True)
class SharedCores:
    """The models whose workers share cores."""

    _shares: list[CoresShare] = field(default_factory=list)

    def join(self) -> CoresShare:
        """Return the share of one more model."""
        share = CoresShare()
        self._shares.append(share)
        return share

    def leave(self, share: CoresShare) -> None:
        """Forget a model that was closed; once is enough."""
        if share in self._shares:
            self._shares.remove(share)

    def seconds_of_others(self, share: CoresShare, own_s: float) -> float:
        """Return what other models' queues take of the cores while a model works for so long.

        The operating system shares the cores out evenly, so each takes at most as long as this one.
        """
        others = (other.waiting_s for other in self._shares if other is not share)
        return sum(min(own_s, waiting_s) for waiting_s in others)

    def busy_of_others(self, share: CoresShare) -> int:
        """Return how many workers of other models run a batch now."""
        return sum(other.busy for other in self._shares if other is not share)
