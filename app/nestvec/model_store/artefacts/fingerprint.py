"""Fingerprints: of files, and of the embedding space that they and the build options make."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from nestvec.errors import ArtefactError
from nestvec.export.architectures import GRAPH_VERSION, ROTARY_TYPES
from nestvec.model_store.artefacts.calibration_texts import calibration_sha256
from nestvec.model_store.artefacts.precision import CALIBRATED, BuildOptions, Precision
from nestvec.model_store.folder.model_folder import ModelFolder
from nestvec.model_store.sources.hashes import file_sha256
from nestvec.system.durable_files import atomic_write
from nestvec.system.json_files import load_json

# 128 bits: collisions are out of reach, and it fits a header and a folder name.
FINGERPRINT_CHARS: Final = 32


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
        """Return the SHA-256 of a file's content, from memory where its stat is unchanged.

        Raises:
            ArtefactError: The file cannot be read.
        """
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
                with atomic_write(self._path) as file:
                    file.write(json.dumps(self._known).encode())
        return self._known[key]


def space_fingerprint(
    folder: ModelFolder, hashes: HashCache, build: BuildOptions | None = None
) -> str:
    """Name the embedding space: two models share it only if their vectors may be compared.

    The literal keys and their order decide the hash, which is stored with artefacts and with users' vectors.

    Args:
        folder: The model's files and what they say.
        hashes: Remembers the hashes of big files.
        build: Precision and storage; fp32 by default.

    Returns:
        32 hexadecimal digits.
    """
    build = build or BuildOptions()
    is_calibrated = build.precision in CALIBRATED
    content: Mapping[str, Any] = {
        "graph_version": GRAPH_VERSION,
        "layout": folder.layout,
        "weights": sorted(hashes.sha256(path) for path in folder.weights),
        "tokenizer": hashes.sha256(folder.tokenizer_path),
        "config": dict(folder.config),
        "max_tokens": folder.max_tokens,
        "pooling": folder.head.pooling,
        "pools_prompt": folder.pools_prompt,
        "prompts": dict(folder.prompts),
        "default_prompt": folder.default_prompt,
        "precision": build.precision,
        "halves_weights": build.halves_weights,
        "calibration": calibration_sha256(build.calibration) if is_calibrated else None,
    }
    if build.precision is Precision.BF16 and folder.architecture in ROTARY_TYPES:
        # Before, angles were computed in bfloat16, which has 8 bits: beyond 256 tokens they were of other positions.
        content = {**content, "rotary": "tables"}
    if build.rounds_table:
        content = {**content, "table": "int8"}
    if not folder.adds_special_tokens:
        content = {**content, "adds_special_tokens": False}
    if folder.echo is not None:
        content = {**content, "echo": folder.echo}
    if folder.drops_unknown:
        content = {**content, "drops_unknown": True}
    if changes := folder.tokenizer_changes.summary():
        content = {**content, "tokenizer_changes": changes}
    if folder.pair is not None:
        content = {**content, "pair": dataclasses.astuple(folder.pair)}
    if summary := folder.head.summary():
        content = {**content, "head": summary}
    content = {**content, **_of_pictures(folder, hashes)}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:FINGERPRINT_CHARS]


def _of_pictures(folder: ModelFolder, hashes: HashCache) -> dict[str, Any]:
    """Return what of a model's pictures decides vectors; nothing where it takes texts only."""
    if folder.pictures is None:
        return {}
    found: dict[str, Any] = {"pictures": folder.pictures.summary()}
    if folder.pictures.files:
        found["picture_weights"] = sorted(map(hashes.sha256, folder.pictures.files))
    return found
