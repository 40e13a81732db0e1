"""Maps of a model's vectors, kept beside its artefact: `maps/<name>.npz`, arrays and a line of JSON, no pickles."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np

from nestvec.engine.vectors.label_calibration import MAX_SCORES, LabelCalibration
from nestvec.engine.vectors.maps import AffineMap, MapKind
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.errors import FormatError
from nestvec.model_store.cache_files import atomic_cache_write, cache_writes, ensure_dir
from nestvec.system.json_files import load_json

log = logging.getLogger(__name__)

FOLDER: Final = "maps"
SUFFIX: Final = ".npz"
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MATRIX: Final = 2
FITTED: Final = "fitted"  # where a map's 8-bit ranges come from
# Fields of a map's line of JSON, written where they are true.
PICTURE_ANCHORS: Final = "picture_anchors"
OF_PICTURES: Final = "of_pictures"
# By attribute of `LabelCalibration`.
LABEL_ARRAYS: Final = {
    "scores": "label_scores",
    "sigmoids": "label_sigmoids",
    "thresholds": "label_thresholds",
}


def check_map_name(name: str) -> str:
    """Return a map's name, which is also its file's.

    Raises:
        FormatError: It has other characters, or too many.
    """
    if not NAME.fullmatch(name):
        raise FormatError(f"map name '{name}': use a-z, 0-9, '.', '_' and '-', at most 64 of them")
    return name


def list_maps(artefact: Path) -> list[Path]:
    """Return the files of a model's maps, by name."""
    return sorted((artefact / FOLDER).glob(f"*{SUFFIX}"))


def read_maps(artefact: Path, space: str) -> dict[str, AffineMap]:
    """Read every map of a model, by name; one that is unreadable or of another space is left out with a warning."""
    maps = {}
    for path in list_maps(artefact):
        try:
            affine_map = read_map(path)
        except FormatError as error:
            log.warning("a map is left out: %s", error.message)
            continue
        if affine_map.source != space:
            log.warning("a map is left out: %s was fitted in another space", path)
            continue
        maps[affine_map.name] = affine_map
    return maps


def read_map(path: Path) -> AffineMap:
    """Read a map from its file.

    Raises:
        FormatError: The file is no map, or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            weight, bias, vectors = (
                np.asarray(stored[name], np.float32) for name in ("weight", "bias", "calibration")
            )
            meta = load_json(str(stored["meta"]))
            label_calibration = _read_label_calibration(stored, meta)
        affine_map = AffineMap(
            name=check_map_name(str(meta["name"])),
            kind=MapKind(meta["kind"]),
            weight=weight,
            bias=bias,
            source=str(meta["source"]),
            target=str(meta["target"]),
            target_model=str(meta["target_model"]),
            layers=int(meta["layers"]),
            takes_unit=bool(meta["takes_unit"]),
            figures={str(name): float(value) for name, value in meta["figures"].items()},
            quantizer=Quantizer(vectors if len(vectors) else None, FITTED),
            labels=tuple(map(str, meta.get("labels", ()))),
            template=str(meta.get("template", "")),
            label_calibration=label_calibration,
            has_picture_anchors=bool(meta.get(PICTURE_ANCHORS)),
        )
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        OverflowError,
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
    if not _are_labels_whole(affine_map):
        raise FormatError(f"{path}: not a map (its labels do not fit its arrays)")
    return affine_map


def _read_label_calibration(
    stored: Mapping[str, Any], meta: Mapping[str, Any]
) -> LabelCalibration | None:
    """Read what a map's file says of its labels' probabilities; None where it says nothing."""
    described = meta.get("label_calibration")
    if described is None:
        return None
    scores, sigmoids, thresholds = (
        np.asarray(stored[name], np.float64) for name in LABEL_ARRAYS.values()
    )
    temperature = described["temperature"]
    return LabelCalibration(
        temperature=None if temperature is None else float(temperature),
        scores=scores,
        count=int(described["count"]),
        sigmoids=sigmoids,
        thresholds=thresholds,
        is_of_pictures=bool(described.get(OF_PICTURES)),
    )


def _are_labels_whole(affine_map: AffineMap) -> bool:
    """Whether a map of concepts has a label for each value, and what it learned of them fits; others have neither."""
    labels, learned = affine_map.labels, affine_map.label_calibration
    if affine_map.kind is not MapKind.CONCEPTS:
        return not labels and learned is None
    if len(labels) != affine_map.width or len(set(labels)) != len(labels) or "" in labels:
        return False
    if any("\n" in label for label in labels):
        return False
    if learned is None:
        return True
    arrays = (learned.scores, learned.sigmoids, learned.thresholds)
    has_scores = learned.temperature is not None
    return (
        all(np.isfinite(array).all() for array in arrays)
        and (not has_scores or 0 < float(learned.temperature or 0) < np.inf)
        and learned.scores.ndim == 1
        and len(learned.scores) == (min(learned.count, MAX_SCORES) if has_scores else 0)
        and learned.count >= int(has_scores)
        and bool((np.diff(learned.scores) >= 0).all())
        and learned.sigmoids.shape == (len(labels), 2)
        and learned.thresholds.shape == (len(labels),)
    )


def store_map(artefact: Path, affine_map: AffineMap) -> Path:
    """Write a map beside its model's artefact; an earlier one of its name is replaced.

    Returns:
        The file.

    Raises:
        ArtefactError: The cache cannot be written.
    """
    with cache_writes(artefact):
        folder = ensure_dir(artefact / FOLDER)
    path = folder / f"{check_map_name(affine_map.name)}{SUFFIX}"
    write_map(path, affine_map)
    return path


def write_map(path: Path, affine_map: AffineMap) -> None:
    """Write a map to a file.

    Raises:
        ArtefactError: It cannot be written.
    """
    meta: dict[str, Any] = {
        "name": affine_map.name,
        "kind": affine_map.kind.value,
        "source": affine_map.source,
        "target": affine_map.target,
        "target_model": affine_map.target_model,
        "layers": affine_map.layers,
        "takes_unit": affine_map.takes_unit,
        "figures": dict(affine_map.figures),
    }
    learned, label_arrays = affine_map.label_calibration, {}
    if affine_map.labels:
        meta |= {"labels": affine_map.labels, "template": affine_map.template}
    if affine_map.has_picture_anchors:
        meta[PICTURE_ANCHORS] = True
    if learned is not None:
        meta["label_calibration"] = {"temperature": learned.temperature, "count": learned.count}
        if learned.is_of_pictures:
            meta["label_calibration"][OF_PICTURES] = True
        label_arrays = {name: getattr(learned, field) for field, name in LABEL_ARRAYS.items()}
    vectors = affine_map.quantizer.vectors
    calibration = np.empty((0, affine_map.width), np.float32) if vectors is None else vectors
    with atomic_cache_write(path) as file:
        np.savez(
            file,
            weight=affine_map.weight,
            bias=affine_map.bias,
            calibration=calibration,
            meta=np.array(json.dumps(meta)),
            **label_arrays,
        )
