"""Tables as Markdown."""

from collections.abc import Sequence


def rows(lines: Sequence[Sequence[object]]) -> list[str]:
    """Return a Markdown table, the first row its head."""
    head, *body = [[str(cell) for cell in line] for line in lines]
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]
