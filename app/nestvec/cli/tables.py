"""Tables and sizes as the verbs print them."""

from collections.abc import Sequence
from typing import Final

import click

UNITS: Final = ("B", "kB", "MB", "GB", "TB")
STEP: Final = 1000
THREE_DIGITS: Final = 99.95  # from here on a number has three digits before the point


def echo_table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print rows, the first of which is the head, in columns as wide as they need to be.

    Args:
        rows: The cells of each row.
        right: Which columns are aligned to the right.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        click.echo("  ".join(cells).rstrip())


def bytes_text(size_bytes: float) -> str:
    """Write a size as people do: "90.4 MB"."""
    unit = 0
    while size_bytes >= STEP - 0.5 and unit < len(UNITS) - 1:
        size_bytes /= STEP
        unit += 1
    digits = 0 if unit == 0 or size_bytes >= THREE_DIGITS else 1
    return f"{size_bytes:.{digits}f} {UNITS[unit]}"


def count_text(count: int) -> str:
    """Write a number of parameters as people do: "22.7M"."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            value = count / size
            return f"{value:.0f}{unit}" if value >= THREE_DIGITS else f"{value:.1f}{unit}"
    return str(count)
