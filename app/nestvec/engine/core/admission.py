"""Who may join the queue: pure. A refusal says when to come again.

Three rules: the queue is bounded in tokens; one key among several leaves room for others (a threshold that falls with
the room that is left: Choudhury and Hahne, IEEE/ACM Trans. Networking 1998); and what could not be done by its deadline
is refused now rather than after the wait.
"""

import random
from dataclasses import dataclass
from typing import Final

from nestvec.engine.core.cost_model import OnlineCostModel
from nestvec.engine.core.scheduler import Scheduler
from nestvec.engine.types import Priority
from nestvec.errors import QueueFullError

MAX_RETRY_AFTER_S: Final = (
    120.0  # above this, openai-python does not retry at all (api-contract 1.9)
)
# A key may hold this many times the room that is left: alone four fifths of the queue, two of them four ninths each.
KEY_SHARE: Final = 4.0


@dataclass(slots=True)
class Admission:
    """Asked under the core's lock.

    Attributes:
        scheduler: What waits.
        cost_model: What it will take.
        workers: How many work it off.
        max_queue_tokens: Tokens that may wait.
    """

    scheduler: Scheduler
    cost_model: OnlineCostModel
    workers: int
    max_queue_tokens: int

    def check_room(self, waiting_tokens: int, asked_tokens: int, key_id: str) -> None:
        """Refuse what would pass the bound; an empty queue takes any call.

        Args:
            waiting_tokens: Of all keys.
            asked_tokens: Of the call.
            key_id: Whose it is; "" where keys are not asked for.

        Raises:
            QueueFullError: It would.
        """
        most = self.max_queue_tokens
        if not waiting_tokens:
            return
        if waiting_tokens + asked_tokens > most:
            raise QueueFullError(
                f"The queue holds {waiting_tokens} tokens of at most {most}; "
                f"these inputs need {asked_tokens} more. Retry later or send fewer inputs.",
                retry_after_s=self.retry_after_s(waiting_tokens),
            )
        own = self.scheduler.tokens_of(key_id) if key_id else 0
        if own and own + asked_tokens > KEY_SHARE * (most - waiting_tokens):
            raise QueueFullError(
                f"Your key has {own} tokens in a queue of at most {most}, the rest of which is kept "
                "for other keys. Retry later or send fewer inputs.",
                retry_after_s=self.retry_after_s(own),
            )

    def check_wait(self, asked_tokens: int, key_id: str, priority: Priority, left_s: float) -> None:
        """Refuse what would not be done in time, as far as can be foreseen; an empty queue takes any call.

        Raises:
            QueueFullError: It would not.
        """
        token_s = self.token_s()
        if token_s is None or not self.scheduler.waiting_tokens:
            return
        tokens = self.scheduler.tokens_before(priority, key_id, asked_tokens)
        wait_s = tokens * token_s / self.workers
        if wait_s > left_s:
            raise QueueFullError(
                f"These inputs would take about {wait_s:.1f} s from now, and the deadline is in "
                f"{max(0.0, left_s):.1f} s. Retry later, allow more time, or send fewer inputs.",
                retry_after_s=jittered(wait_s - left_s),
            )

    def retry_after_s(self, waiting_tokens: float) -> float:
        """Time to drain half of what waits as predicted, jittered so that clients do not return as one."""
        token_s = self.token_s()
        return jittered(2.0 if token_s is None else waiting_tokens * token_s / self.workers / 2)

    def token_s(self) -> float | None:
        """Seconds that a token takes one worker; None while still learning."""
        return self.cost_model.seconds_per_token(self.scheduler.budget)


def jittered(wait_s: float) -> float:
    """Up to a quarter more or less, and never so short that all come back within the same second."""
    spread = wait_s * random.uniform(0.75, 1.25)  # noqa: S311 - spreads retries, no secret
    return min(max(spread, random.uniform(1.0, 3.0)), MAX_RETRY_AFTER_S)  # noqa: S311 - likewise
