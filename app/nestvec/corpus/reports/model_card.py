"""A page about a model: what it is, its languages, what was measured of it here; as Markdown and as HTML.

It is written from what `GET /v1/models/{id}` tells, so that a server and the command line write the same.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nestvec.corpus.reports import render

Json = Mapping[str, Any]

# What a reader asks first, by the keys that tell it; the words stand in front of the value.
FACTS: Final = (
    ("architecture", "architecture"),
    ("parameters", "parameters"),
    ("dimensions", "dimensions"),
    ("max_model_len", "tokens a text"),
    ("outputs", "outputs"),
    ("pooling", "pooling"),
    ("prompts", "prompts"),
    ("precision", "precision"),
    ("provider", "runs on"),
    ("license", "licence"),
    ("languages", "languages"),
    ("source", "source"),
    ("space", "space"),
)
UNTOLD: Final = "not told by its card"
NOTHING: Final = "Nothing was measured here yet: `nestvec report` and `nestvec quality` do, on texts of your own."
NOT_LOADED: Final = (
    "The model has not been loaded since the server started; what it is shows once it has been."
)


def card_markdown(model: Json) -> str:
    """Return the page as Markdown.

    Args:
        model: As `GET /v1/models/{id}` describes it.
    """
    parts = [f"# {model['id']}\n"]
    if model.get("dimensions") is None:
        return parts[0] + f"\n{NOT_LOADED}\n"
    parts += ["| | |", "|---|---|"]
    parts += [f"| {words} | {_plain(value)} |" for words, value in facts(model)]
    quality, reports = _quality_lines(model), model.get("reports") or {}
    if quality:
        parts += ["\n## What smaller vectors cost\n", *(f"- {line}" for line in quality)]
    for name, result in reports.items():
        parts.append("\n#" + render.markdown(_whole(name, result)).rstrip())
    if not quality and not reports:
        parts.append(f"\n{NOTHING}")
    return "\n".join(parts) + "\n"


def card_page(model: Json) -> str:
    """Return the page as HTML; see `card_markdown`."""
    if model.get("dimensions") is None:
        return render.page_of(model["id"], f"<p>{NOT_LOADED}</p>")
    rows = [[words, value] for words, value in facts(model)]
    sections = [render.html_table(("what it is", ""), rows)]
    quality, reports = _quality_lines(model), model.get("reports") or {}
    if quality:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in quality)
        sections.append(f"<h2>What smaller vectors cost</h2>\n<ul>{lines}</ul>")
    for name, result in reports.items():
        sections.append(f"<h2>{html.escape(name)}</h2>\n" + render.section(_whole(name, result)))
    if not quality and not reports:
        sections.append(f"<p>{html.escape(NOTHING)}</p>")
    return render.page_of(model["id"], *sections)


def facts(model: Json) -> list[tuple[str, str]]:
    """Return what a model is, as words and a value each."""
    return [(words, _fact(key, model.get(key))) for key, words in FACTS]


def _fact(key: str, value: Any) -> str:  # noqa: ANN401 - JSON is of any type
    if key == "dimensions" and isinstance(value, Mapping):
        trained = [str(size) for size in value.get("trained", ()) if size != value["native"]]
        smaller = f", trained for {', '.join(trained)} too" if trained else ""
        return f"{value['native']}{smaller}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or (UNTOLD if key == "languages" else "none")
    if isinstance(value, int):
        return f"{value:,}"
    return UNTOLD if value in (None, "") else str(value)


def _quality_lines(model: Json) -> list[str]:
    quality = model.get("quality") or {}
    return [str(row["text"]) for row in quality.get("recommendations", ()) if "text" in row]


def _whole(name: str, result: Json) -> dict[str, Any]:
    """Return a kept report with what is not kept of it."""
    return {"report": name, "tables": [], **result}


def _plain(text: str) -> str:
    return text.replace("|", "\\|")
