"""Measures the table of docs/architectures.md: `make families-table`."""

import sys
import tempfile
from pathlib import Path

from tests.export.families.harness import all_families, largest_error, load

START, END = "<!-- measured -->\n", "<!-- end -->"


def table() -> str:
    """Make a table with each family's largest difference to transformers, over all its inputs and batches."""
    lines = ["| model_type | largest difference to transformers | packed |", "|---|---|---|"]
    for name in all_families():
        family = load(name)
        with tempfile.TemporaryDirectory() as folder:
            backend = family.open(Path(folder))
            worst = largest_error(family, backend)
            backend.close()
        lines.append(f"| `{name}` | {worst:.0e} | yes |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Rewrite the measured part of the page that the first argument names."""
    path = Path(sys.argv[1])
    page = path.read_text("utf-8")
    before, after = page.split(START, 1)
    path.write_text(before + START + table() + END + after.split(END, 1)[1], "utf-8")


if __name__ == "__main__":
    main()
