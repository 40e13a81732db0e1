"""Who may join the queue: pure. A refusal says when to come again.

There are three rules: the queue is bounded in tokens; one key among several leaves room for others (a threshold that
falls with the room that is left: Choudhury and Hahne, IEEE/ACM Trans. Networking 1998); and what could not be done by
its deadline is refused now rather than after the wait.
"""

import random
from dataclasses import dataclass
from typing import Final

from nestvec.engine.core.batching.cost_model import OnlineCostModel
from nestvec.engine.core.batching.scheduler import Scheduler
from nestvec.engine.types import ItemOptions, Submission
from nestvec.errors import QueueFullError

# openai-python does not retry at all after a longer `Retry-After`.
MAX_RETRY_AFTER_S: Final = 120.0
# A key may hold this many times the room that is left: alone four fifths of the queue, two of them four ninths each.
KEY_SHARE: Final = 4.0


@dataclass(slots=True)
class Admission:
    """Decides about calls before they are queued; the core asks it under its lock.

    Attributes:
        scheduler: What waits.
        cost_model: How long it will take.
        workers: Number of workers that run it.
        max_queue_tokens: How many tokens may wait.
    """

    scheduler: Scheduler
    cost_model: OnlineCostModel
    workers: int
    max_queue_tokens: int

    def check(self, submission: Submission, waiting_tokens: int, now_s: float) -> None:
        """Refuse a call that would pass the queue's bound, or could not be done in time.

        Args:
            submission: The call.
            waiting_tokens: Tokens of all keys that wait.
            now_s: Monotonic time.

        Raises:
            QueueFullError: The call is refused; the error says when to retry.
        """
        tokens, options = submission.tokens, submission.options
        self.check_queue_bound(waiting_tokens, tokens, options.key_id)
        if options.deadline_s is not None:
            self.check_deadline(tokens, options, options.deadline_s - now_s)

    def check_queue_bound(self, waiting_tokens: int, tokens: int, key_id: str) -> None:
        """Refuse what would pass the queue's bound; an empty queue takes any call.

        Args:
            waiting_tokens: Tokens of all keys that wait.
            tokens: Tokens of the call.
            key_id: The key whose call it is; "" where no keys are required.

        Raises:
            QueueFullError: The call would pass the bound, or its key's part of it.
        """
        max_tokens = self.max_queue_tokens
        if not waiting_tokens:
            return
        if waiting_tokens + tokens > max_tokens:
            raise QueueFullError(
                f"The queue holds {waiting_tokens} tokens of at most {max_tokens}; "
                f"these inputs need {tokens} more. Retry later or send fewer inputs.",
                retry_after_s=self.retry_after_s(waiting_tokens),
            )
        key_tokens = self.scheduler.tokens_of(key_id) if key_id else 0
        if key_tokens and key_tokens + tokens > KEY_SHARE * (max_tokens - waiting_tokens):
            raise QueueFullError(
                f"Your key has {key_tokens} tokens in a queue of at most {max_tokens}, the rest of which is kept "
                "for other keys. Retry later or send fewer inputs.",
                retry_after_s=self.retry_after_s(key_tokens),
            )

    def check_deadline(self, tokens: int, options: ItemOptions, left_s: float) -> None:
        """Refuse what would not be done in time, as far as that can be foreseen; an empty queue takes any call.

        Args:
            tokens: Tokens of the call.
            options: Its key and class.
            left_s: Seconds until its deadline.

        Raises:
            QueueFullError: The call would not be done by its deadline.
        """
        token_s = self.token_s()
        if token_s is None or not self.scheduler.waiting_tokens:
            return
        tokens_before = self.scheduler.tokens_before(options.priority, options.key_id, tokens)
        wait_s = tokens_before * token_s / self.workers
        if wait_s > left_s:
            raise QueueFullError(
                f"These inputs would take about {wait_s:.1f} s from now, and the deadline is in "
                f"{max(0.0, left_s):.1f} s. Retry later, allow more time, or send fewer inputs.",
                retry_after_s=jittered(wait_s - left_s),
            )

    def retry_after_s(self, waiting_tokens: float) -> float:
        """Return the predicted time to drain half of what waits, jittered so that clients do not return as one."""
        token_s = self.token_s()
        return jittered(2.0 if token_s is None else waiting_tokens * token_s / self.workers / 2)

    def token_s(self) -> float | None:
        """Return the seconds that a token takes one worker; None while still learning."""
        return self.cost_model.seconds_per_token(self.scheduler.budget)


def jittered(wait_s: float) -> float:
    """Return up to a quarter more or less, and never so little that all clients come back within the same second."""
    spread = wait_s * random.uniform(0.75, 1.25)  # noqa: S311 - spreads retries, no secret
    return min(max(spread, random.uniform(1.0, 3.0)), MAX_RETRY_AFTER_S)  # noqa: S311 - likewise
