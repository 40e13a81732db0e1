"""Reports about a model, kept beside its artefact: servers show them to whoever chooses a model.

The report `quality` that `nestvec quality` makes has a file of its own form (`read_quality`).
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nestvec.model_store.cache_files import atomic_cache_write
from nestvec.system.json_files import load_json

PREFIX: Final = "report-"
QUALITY_FILE: Final = "quality.json"
# What a server shows of each; tables stay in the files that the report wrote.
KEPT: Final = (
    *("report", "title", "model", "space", "seed", "texts_of", "nestvec", "made_s", "method"),
    *("figures", "notes", "advice"),
)
MAX_BYTES: Final = 200_000
# Beyond these nothing that a report measures lies.
MAX_TIME_S: Final = 100_000_000_000
MAX_VALUE: Final = 1e300


def read_reports(artefact: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the kept reports by name; files that are not whole are left out."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(artefact.glob(f"{PREFIX}*.json")):
        try:
            if path.stat().st_size > MAX_BYTES:
                continue
            content = load_json(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if _is_whole(content):
            found[path.stem.removeprefix(PREFIX)] = content
    return found


def write_report(artefact: Path, result: Mapping[str, Any]) -> Path:
    """Keep a report beside an artefact; an earlier one of its name is replaced.

    Returns:
        The file.

    Raises:
        ArtefactError: The cache cannot be written.
    """
    path = artefact / f"{PREFIX}{result['report']}.json"
    content = json.dumps({name: result[name] for name in KEPT}, indent=1)
    with atomic_cache_write(path) as file:
        file.write(content.encode())
    return path


def _is_whole(content: object) -> bool:
    """Whether a file's content can be shown: figures with numbers, lines of text."""
    if not isinstance(content, dict) or not all(name in content for name in KEPT):
        return False
    lines = (content["notes"], content["advice"])
    if not all(isinstance(rows, list) and all(isinstance(x, str) for x in rows) for rows in lines):
        return False
    words = ("report", "title", "model", "space", "nestvec", "method")
    if not all(isinstance(content[name], str) for name in words):
        return False
    if not isinstance(content["made_s"], int) or not 0 <= content["made_s"] < MAX_TIME_S:
        return False
    figures = content["figures"]
    return isinstance(figures, list) and all(map(_is_figure, figures))


def _is_figure(figure: object) -> bool:
    if not isinstance(figure, dict):
        return False
    texts = all(isinstance(figure.get(name), str) for name in ("name", "unit", "better"))
    has_interval = figure.get("low") is not None and figure.get("high") is not None
    numbers = [figure.get("value"), figure.get("n")]
    numbers += [figure["low"], figure["high"]] if has_interval else []
    numbers += [] if figure.get("p") is None else [figure["p"]]
    named = all(name in figure for name in ("low", "high", "p"))
    is_open = figure.get("low") is None and figure.get("high") is None
    return texts and named and (has_interval or is_open) and all(map(_is_number, numbers))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < MAX_VALUE


def read_quality(artefact: Path) -> Mapping[str, Any] | None:
    """Read the figures of the report `quality`; None where nothing was measured, or the file is not whole."""
    try:
        figures = load_json((artefact / QUALITY_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return figures if isinstance(figures, dict) else None


def write_quality(artefact: Path, figures: Mapping[str, Any]) -> Path:
    """Keep figures of the report `quality` beside an artefact; earlier ones are replaced.

    Returns:
        The file.

    Raises:
        ArtefactError: The cache cannot be written.
    """
    path = artefact / QUALITY_FILE
    content = json.dumps(figures, indent=1)
    with atomic_cache_write(path) as file:
        file.write(content.encode())
    return path
