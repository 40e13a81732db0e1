"""Reports about a model, kept beside its artefact: servers show them to whoever chooses a model.

The report `quality` that `nestvec quality` makes has a file of its own form (`quality_results`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nestvec.model_store.cache_files import atomic_cache_write
from nestvec.system.json_files import load_json

PREFIX: Final = "report-"
# What a server shows of each; tables stay in the files that the report wrote.
KEPT: Final = (
    *("report", "title", "model", "space", "seed", "texts_of", "nestvec", "made_s", "method"),
    *("figures", "notes", "advice"),
)
MAX_BYTES: Final = 200_000


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
        if isinstance(content, dict) and all(name in content for name in KEPT):
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
