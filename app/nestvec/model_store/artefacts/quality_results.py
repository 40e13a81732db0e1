"""Figures of a quality report, kept beside the artefact: servers show them to whoever chooses dimensions and dtype."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nestvec.model_store.cache_files import atomic_cache_write
from nestvec.system.json_files import load_json

QUALITY_FILE: Final = "quality.json"


def read_quality(artefact: Path) -> Mapping[str, Any] | None:
    """Read the figures; None where nothing was measured, or the file is not whole."""
    try:
        figures = load_json((artefact / QUALITY_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return figures if isinstance(figures, dict) else None


def write_quality(artefact: Path, figures: Mapping[str, Any]) -> Path:
    """Keep figures beside an artefact; earlier ones are replaced.

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
