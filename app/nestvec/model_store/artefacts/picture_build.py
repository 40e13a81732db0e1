"""Builds the graph of pictures beside that of texts, and holds it to its own golden probes at each start."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from nestvec.engine.backend import Backend, BackendFactory, BackendOptions
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.pictures.preprocessing import PictureTower, content_ids
from nestvec.engine.types import FloatArray, Item, ItemOptions, Layout
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import BackendError, ProbeError
from nestvec.export.two_towers.picture_graph import PICTURE_GRAPH
from nestvec.model_store.artefacts.probes import check_probes
from nestvec.model_store.folder.model_folder import ModelFolder

PICTURE_PROBES: Final = "picture_probes.npy"
PROBE_COUNT: Final = 3
SEED: Final = 20
OPTIONS: Final = ItemOptions(are_pictures=True)


def picture_vectors(backend: Backend, tower: PictureTower) -> FloatArray:
    """Compute unit vectors of a few made pictures, [P, D], float32: blends of colours with more and more noise.

    Raises:
        ProbeError: The graph cannot be run on them.
    """
    random = np.random.default_rng(SEED)
    ramp = np.linspace(0, 1, tower.size)
    blend = np.stack([np.outer(ramp, ramp), np.outer(1 - ramp, ramp), np.outer(ramp, 1 - ramp)], -1)
    items = []
    for number in range(PROBE_COUNT):
        noise = random.random(blend.shape)
        share = number / (PROBE_COUNT - 1)
        pixels = ((1 - share) * blend + share * noise) * 255
        whole = np.ascontiguousarray(pixels.astype(np.uint8))
        items.append(Item(content_ids(whole, tower.tokens), number, pixels=whole))
    try:
        rows = raw_vectors(backend, items, Pooler(), [OPTIONS] * len(items))
    except BackendError as error:
        raise ProbeError(f"the graph of pictures fails: {error.__cause__ or error}") from error
    return finish(rows, dimensions=None, normalize=True)


def export_pictures(
    artefact: Path,
    folder: ModelFolder,
    open_backend: BackendFactory,
    on_tensor: Callable[[int], None],
) -> None:
    """Write the graph of a model's pictures into its artefact, and the vectors of its probes beside it.

    Raises:
        FormatError: Configuration and weights do not fit each other, or the graph cannot be opened.
        ProbeError: It cannot be run, or gives values that are not finite.
    """
    assert folder.pictures is not None  # noqa: S101 - the caller has looked
    path = artefact / PICTURE_GRAPH
    folder.pictures.export(folder.path, folder.config, path, on_tensor)
    backend = open_backend(path, Layout.PACKED, BackendOptions(provider="cpu"))
    try:
        vectors = picture_vectors(backend, folder.pictures.tower)
    finally:
        backend.close()
    check_probes(vectors, vectors, "cpu")
    np.save(artefact / PICTURE_PROBES, vectors)


def check_picture_probes(artefact: Path, backend: Backend, tower: PictureTower) -> None:
    """Compute the probes again, and compare them with those that are kept.

    Raises:
        ProbeError: They differ, or the file of them cannot be read.
    """
    path = artefact / PICTURE_PROBES
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ProbeError(
            f"{path}: cannot be read; remove the artefact from the cache to export again"
        ) from error
    check_probes(picture_vectors(backend, tower), stored, backend.info.provider)
