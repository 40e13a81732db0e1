"""Maps of a model's vectors, kept beside its artefact: `maps/<name>.npz`, arrays and a line of JSON, no pickles."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np

from nestvec.engine.vectors.maps import AffineMap, MapKind
from nestvec.engine.vectors.quantization import Quantiser
from nestvec.errors import FormatError
from nestvec.model_store.sources.disk import cache_writes, made, put_file
from nestvec.system.json_text import load_json

log = logging.getLogger(__name__)

FOLDER: Final = "maps"
SUFFIX: Final = ".npz"
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MATRIX: Final = 2
FITTED: Final = "fitted"  # where a map's 8-bit ranges come from


def check_map_name(name: str) -> str:
    """A name that may be a file's.

    Raises:
        FormatError: It may not.
    """
    if not NAME.fullmatch(name):
        raise FormatError(f"map name '{name}': use a-z, 0-9, '.', '_' and '-', at most 64 of them")
    return name


def read_maps(artefact: Path, space: str) -> dict[str, AffineMap]:
    """Every map of a model, by name; one that cannot be read, or is another model's, is left out with a warning."""
    found = {}
    for path in sorted((artefact / FOLDER).glob(f"*{SUFFIX}")):
        try:
            one = read_map(path)
        except FormatError as error:
            log.warning("a map is left out: %s", error.message)
            continue
        if one.source != space:
            log.warning("a map is left out: %s was fitted in another space", path)
            continue
        found[one.name] = one
    return found


def read_map(path: Path) -> AffineMap:
    """A map from its file.

    Raises:
        FormatError: It is not one, or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            weight, bias, vectors = (
                np.asarray(stored[name], np.float32) for name in ("weight", "bias", "calibration")
            )
            said = load_json(str(stored["meta"]))
        found = AffineMap(
            name=check_map_name(str(said["name"])),
            kind=MapKind(said["kind"]),
            weight=weight,
            bias=bias,
            source=str(said["source"]),
            target=str(said["target"]),
            target_model=str(said["target_model"]),
            layers=int(said["layers"]),
            takes_unit=bool(said["takes_unit"]),
            figures={str(name): float(value) for name, value in said["figures"].items()},
            quantiser=Quantiser(vectors if len(vectors) else None, FITTED),
        )
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        TypeError,
        AttributeError,
        BadZipFile,
    ) as error:
        raise FormatError(f"{path}: not a map ({type(error).__name__})") from error
    if (
        weight.ndim != MATRIX
        or bias.shape != weight.shape[1:]
        or vectors.ndim != MATRIX
        or (len(vectors) and vectors.shape[1] != weight.shape[1])
        or not all(np.isfinite(array).all() for array in (weight, bias, vectors))
    ):
        raise FormatError(f"{path}: not a map (its arrays do not fit each other)")
    return found


def keep_map(artefact: Path, one: AffineMap) -> Path:
    """Put a map beside its model's artefact; an earlier one of its name is replaced.

    Raises:
        ArtefactError: The cache cannot be written.
    """
    with cache_writes(artefact):
        folder = made(artefact / FOLDER)
    path = folder / f"{check_map_name(one.name)}{SUFFIX}"
    write_map(path, one)
    return path


def write_map(path: Path, one: AffineMap) -> None:
    """Write a map.

    Raises:
        ArtefactError: It cannot be written.
    """
    said: Mapping[str, Any] = {
        "name": one.name,
        "kind": one.kind.value,
        "source": one.source,
        "target": one.target,
        "target_model": one.target_model,
        "layers": one.layers,
        "takes_unit": one.takes_unit,
        "figures": dict(one.figures),
    }
    vectors = one.quantiser.vectors
    kept = np.empty((0, one.width), np.float32) if vectors is None else vectors
    meta = np.array(json.dumps(said))
    put_file(
        path,
        lambda file: np.savez(file, weight=one.weight, bias=one.bias, calibration=kept, meta=meta),
    )
