"""What a quality report found, kept beside the artefact: servers show it to whoever chooses dimensions and dtype."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nestvec.model_store.sources.disk import put_file
from nestvec.system.json_text import load_json

FILE: Final = "quality.json"


def read_quality(artefact: Path) -> Mapping[str, Any] | None:
    """The figures; None where nothing was measured, or the file is not whole."""
    try:
        found = load_json((artefact / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def keep_quality(artefact: Path, figures: Mapping[str, Any]) -> Path:
    """Keep figures; earlier ones are replaced.

    Raises:
        ArtefactError: The cache cannot be written.
    """
    path = artefact / FILE
    content = json.dumps(figures, indent=1)
    put_file(path, lambda file: file.write(content.encode()))
    return path
