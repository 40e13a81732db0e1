"""Writes the tables of docs/dialects.md from the tables that decide: `python -m nestvec.api.dialect_docs FILE`."""

import json
import re
import sys
from pathlib import Path
from typing import Final

from nestvec.api.dialect_table import DIALECTS, Dialect
from nestvec.api.dialects import (
    cohere,
    gemini,
    jina,
    ollama,
    open_inference,
    openai_body,
    perplexity,
    tei,
    vllm,
    voyage,
)
from nestvec.api.dispatch import ALIASES, DOCS, DialectMatch, matches_of_path
from nestvec.api.requests.vector_fields import VECTOR_FIELDS
from nestvec.api.routes import rerank, similarity
from nestvec.api.scoring import vector_comparison
from nestvec.engine.types import Truncation

MARK: Final = re.compile(r"(<!-- (?P<name>\w+): generated -->\n).*?(<!-- end -->)", re.DOTALL)

# The fields that each dialect knows on any of its routes.
FIELD_TABLES: Final = {
    "OpenAI": openai_body.FIELDS | vllm.POOLING_FIELDS | vllm.CLASSIFY_FIELDS | vllm.SCORE_FIELDS,
    "TEI": tei.EMBED_FIELDS | tei.TOKEN_FIELDS | tei.RERANK_FIELDS | tei.PREDICT_FIELDS,
    "Cohere": cohere.FIELDS,
    "Jina": jina.FIELDS,
    "Voyage": voyage.FIELDS | voyage.MULTIMODAL_FIELDS | voyage.CONTEXTUALIZED_FIELDS,
    "Perplexity": perplexity.CONTEXTUALIZED_FIELDS,
    "Ollama": ollama.FIELDS | ollama.OPTION_FIELDS,
    "Open Inference": open_inference.PARAMETER_FIELDS,
    "Gemini": gemini.FIELDS,
    "rerank": rerank.FIELDS,
    "similarity": similarity.FIELDS - vector_comparison.OPTIONS,
}


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


def foreign_table() -> str:
    """Return the table, in Markdown, of the fields that are refused by dialects that do not have them."""
    lines = ["| field | of | passes as |", "|---|---|---|"]
    for name, neutral in sorted(VECTOR_FIELDS.items()):
        owners = [title for title, tables in FIELD_TABLES.items() if name in tables]
        values = ", ".join(f"`{json.dumps(value)}`" for value in neutral) or "null only"
        lines.append(f"| `{name}` | {', '.join(owners) or 'other vendors'} | {values} |")
    return "\n".join(lines) + "\n"


def fill(page: str) -> str:
    """Return a page with its generated tables up to date."""
    tables = {"matches": matches_table(), "defaults": defaults_table(), "foreign": foreign_table()}
    return MARK.sub(lambda mark: mark[1] + tables[mark["name"]] + mark[3], page)


def _condition(match: DialectMatch) -> str:
    keys = " or ".join(f"`{key}`" for key in match.keys)
    if match.has_objects:
        keys += ", or objects in `input` without `type` or `content`"
    return keys or "anything else"


def _defaults(dialect: Dialect) -> tuple[str, ...]:
    truncation = {None: "the server's `truncate`", Truncation.ERROR: "refused"}.get(
        dialect.default_truncation, f"cut at the {dialect.default_truncation}"
    )
    max_inputs = "the server's" if dialect.max_inputs is None else f"{dialect.max_inputs}"
    roles = ", ".join(f"`{name}`" for name in dialect.role_fields) or "nothing"
    base64 = "the dtype asked for" if dialect.base64_keeps_dtype else "float32"
    error_bodies = {
        "superset_error": '`{"error": {…}, "detail", "message"}`',
        "tei_error": '`{"error", "error_type"}`',
        "ollama_error": '`{"error"}`',
        "string_error": '`{"error"}`',
        "gemini_error": '`{"error": {"code", "message", "status", "details"}}`',
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
