"""Finds a value by halving the range in which it lies: pure."""

from collections.abc import Callable


def halved(low: float, high: float, is_too_low: Callable[[float], bool], steps: int) -> float:
    """Return the value between a range's ends above which nothing is too low.

    Args:
        low: The range's lower end.
        high: Its upper end.
        is_too_low: Tells it of a value.
        steps: How often the range is halved.
    """
    for _step in range(steps):
        middle = (low + high) / 2
        if is_too_low(middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2
