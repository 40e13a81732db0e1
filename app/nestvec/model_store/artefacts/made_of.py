"""Notes beside an exported graph which model it was made of; the time of the note is when it was last used."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from nestvec.errors import ArtefactError
from nestvec.model_store.cache_files import atomic_cache_write
from nestvec.system.json_files import load_json

MADE_OF: Final = "made-of.json"


def note_use(artefact: Path, *, model: str, files: Path, precision: str) -> None:
    """Note that a model is about to run from an artefact; a cache that cannot be written is left as it is.

    Args:
        artefact: The artefact's folder.
        model: The model's name.
        files: The folder of the model's own files.
        precision: The precision that was asked for.
    """
    note = {"model": model, "files": str(files), "precision": precision}
    with suppress(OSError, ArtefactError):
        if read_made_of(artefact) == note:
            os.utime(artefact / MADE_OF)
            return
        with atomic_cache_write(artefact / MADE_OF) as file:
            file.write(json.dumps(note, indent=1).encode())


def read_made_of(artefact: Path) -> dict[str, Any] | None:
    """Read the note of an artefact; None where there is none, as before there were any."""
    try:
        note = load_json((artefact / MADE_OF).read_text("utf-8"))
        return {name: str(note[name]) for name in ("model", "files", "precision")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
