"""What a key has used in a month, as the table of usage has it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """What a key has used in a month.

    Attributes:
        key_id: Id of the key.
        month: The month in UTC, as 2026-11.
        requests: How many requests were let in.
        tokens: How many tokens were run.
    """

    key_id: str
    month: str
    requests: int
    tokens: int
