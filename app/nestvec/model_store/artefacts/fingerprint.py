"""Fingerprints: of files, and of the embedding space that they and the options make."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nestvec.errors import ArtefactError
from nestvec.export.architectures import GRAPH_VERSION
from nestvec.model_store.artefacts.activation_calibration import calibration_sha256
from nestvec.model_store.artefacts.precision import CALIBRATED, BuildOptions
from nestvec.model_store.folder.derive import Derived
from nestvec.model_store.sources.hashes import file_sha256
from nestvec.system.json_text import load_json

FINGERPRINT_CHARS = (
    32  # 128 bits: collisions are out of reach, and it fits a header and a folder name
)


class HashCache:
    """Remembers hashes by path, size, mtime and inode, so that a warm start reads no gigabytes.

    Args:
        path: A JSON file; unreadable or unwritable is the same as empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, str] = {}
        with suppress(OSError, ValueError):
            loaded = load_json(path.read_text("utf-8"))
            self._known = loaded if isinstance(loaded, dict) else {}

    def sha256(self, path: Path) -> str:
        """Hash of a file's content, from memory where its stat is unchanged."""
        try:
            stat = path.stat()
        except OSError as error:
            raise ArtefactError(f"{path}: cannot be read ({error.strerror})") from error
        key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
        if key not in self._known:
            self._known[key] = file_sha256(path)
            # A read-only cache costs time at each start, nothing else.
            with suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                temporary = self._path.with_suffix(".tmp")
                temporary.write_text(json.dumps(self._known), "utf-8")
                temporary.replace(self._path)
        return self._known[key]


def space_fingerprint(
    derived: Derived, hashes: HashCache, build: BuildOptions | None = None
) -> str:
    """Name of the embedding space: two models share it only if their vectors may be compared.

    Args:
        derived: The folder, understood.
        hashes: For the big files.
        build: Precision and storage; fp32 by default.

    Returns:
        32 hexadecimal digits.
    """
    chosen = build or BuildOptions()
    is_calibrated = chosen.precision in CALIBRATED
    content: Mapping[str, Any] = {
        "graph_version": GRAPH_VERSION,
        "layout": derived.layout,
        "weights": sorted(hashes.sha256(path) for path in derived.weights),
        "tokenizer": hashes.sha256(derived.folder / "tokenizer.json"),
        "config": dict(derived.config),
        "max_tokens": derived.max_tokens,
        "pooling": derived.pooling,
        "pools_prompt": derived.pools_prompt,
        "prompts": dict(derived.prompts),
        "default_prompt": derived.default_prompt,
        "precision": chosen.precision,
        "halves_weights": chosen.halves_weights,
        "calibration": calibration_sha256(chosen.calibration) if is_calibrated else None,
    }
    if not derived.adds_special_tokens:
        content = {**content, "adds_special_tokens": False}
    if derived.echo is not None:
        content = {**content, "echo": derived.echo}
    if derived.drops_unknown:
        content = {**content, "drops_unknown": True}
    if summary := derived.head.summary():
        content = {**content, "head": summary}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:FINGERPRINT_CHARS]
