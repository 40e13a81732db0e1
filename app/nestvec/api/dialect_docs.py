"""Writes the tables of docs/dialects.md from the tables that decide: `python -m nestvec.api.dialect_docs FILE`."""

import re
import sys
from pathlib import Path
from typing import Final

from nestvec.api.dialect_table import DIALECTS, Dialect
from nestvec.api.dispatch import ALIASES, DOCS, DialectMatch, matches_of_path

MARK: Final = re.compile(r"(<!-- (?P<name>\w+): generated -->\n).*?(<!-- end -->)", re.DOTALL)


def matches_table() -> str:
    """Return the table, in Markdown, of which dialect answers on a path that several share."""
    lines = ["| path | the body has | dialect |", "|---|---|---|"]
    for path in DOCS:
        names = ", ".join(f"`{name}`" for name in (path, *ALIASES.get(path, ())))
        for dialect, match in matches_of_path(path):
            lines.append(f"| {names} | {_condition(match)} | {dialect.title} |")
    return "\n".join(lines) + "\n"


def defaults_table() -> str:
    """Return the table, in Markdown, of each dialect's defaults."""
    lines = [
        "| dialect | too-long inputs | inputs per request | fields for the texts' role | base64 holds | errors |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_defaults(dialect))} |" for dialect in DIALECTS.values()]
    return "\n".join(lines) + "\n"


def fill(page: str) -> str:
    """Return a page with its generated tables up to date."""
    tables = {"matches": matches_table(), "defaults": defaults_table()}
    return MARK.sub(lambda mark: mark[1] + tables[mark["name"]] + mark[3], page)


def _condition(match: DialectMatch) -> str:
    keys = " or ".join(f"`{key}`" for key in match.keys)
    if match.has_objects:
        keys += ", or objects in `input`"
    return keys or "anything else"


def _defaults(dialect: Dialect) -> tuple[str, ...]:
    truncation = (
        f"cut at the {dialect.default_truncation}"
        if dialect.default_truncation
        else "the server's `truncate`"
    )
    max_inputs = "the server's" if dialect.max_inputs is None else f"{dialect.max_inputs}"
    roles = ", ".join(f"`{name}`" for name in dialect.role_fields) or "nothing"
    base64 = "the dtype asked for" if dialect.base64_keeps_dtype else "float32"
    error_bodies = {
        "superset_error": '`{"error": {…}, "detail", "message"}`',
        "tei_error": '`{"error", "error_type"}`',
        "ollama_error": '`{"error"}`',
        "string_error": '`{"error"}`',
    }
    return (
        dialect.title,
        truncation,
        max_inputs,
        roles,
        base64,
        error_bodies[dialect.envelope.__name__],
    )


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(fill(target.read_text("utf-8")), "utf-8")
