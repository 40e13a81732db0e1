"""The tables of docs/dialects.md, from the tables that decide: `python -m nestvec.api.dialect_docs FILE`."""

import re
import sys
from pathlib import Path
from typing import Final

from nestvec.api.dialect_table import DIALECTS, Dialect
from nestvec.api.dispatch import ALIASES, DOCS, Claim, claimants

MARK: Final = re.compile(r"(<!-- (?P<name>\w+): generated -->\n).*?(<!-- end -->)", re.DOTALL)


def claims_table() -> str:
    """Who answers on a path that several dialects want."""
    lines = ["| path | the body has | dialect |", "|---|---|---|"]
    for path in DOCS:
        names = ", ".join(f"`{name}`" for name in (path, *ALIASES.get(path, ())))
        for dialect, claim in claimants(path):
            lines.append(f"| {names} | {_condition(claim)} | {dialect.title} |")
    return "\n".join(lines) + "\n"


def defaults_table() -> str:
    """What each dialect does where a request does not say."""
    lines = [
        "| dialect | too-long inputs | inputs a request | says what texts are for by | base64 is | its errors |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_defaults(dialect))} |" for dialect in DIALECTS.values()]
    return "\n".join(lines) + "\n"


def fill(page: str) -> str:
    """A page with its generated parts made anew."""
    tables = {"claims": claims_table(), "defaults": defaults_table()}
    return MARK.sub(lambda found: found[1] + tables[found["name"]] + found[3], page)


def _condition(claim: Claim) -> str:
    keys = " or ".join(f"`{key}`" for key in claim.keys)
    if claim.has_objects:
        keys += ", or objects in `input`"
    return keys or "anything else"


def _defaults(dialect: Dialect) -> tuple[str, ...]:
    cuts = f"cut at the {dialect.truncate}" if dialect.truncate else "the server's `truncate`"
    most = "the server's" if dialect.max_inputs is None else f"{dialect.max_inputs}"
    roles = ", ".join(f"`{name}`" for name in dialect.role_fields) or "nothing"
    is_float = dialect.base64_is == "float32"
    shapes = {
        "superset_error": '`{"error": {…}, "detail", "message"}`',
        "tei_error": '`{"error", "error_type"}`',
        "ollama_error": '`{"error"}`',
        "string_error": '`{"error"}`',
    }
    return (
        dialect.title,
        cuts,
        most,
        roles,
        "float32" if is_float else "of the dtype asked for",
        shapes[dialect.envelope.__name__],
    )


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(fill(target.read_text("utf-8")), "utf-8")
