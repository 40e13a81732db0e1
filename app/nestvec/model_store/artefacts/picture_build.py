"""Builds the graph of pictures beside that of texts, and holds it to its own golden probes at each start."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from nestvec.engine.backend import Backend, BackendFactory, BackendOptions
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.core.prefix_backend import PrefixBackend
from nestvec.engine.pictures.prefix import PrefixTower
from nestvec.engine.pictures.preprocessing import PixelArray
from nestvec.engine.pictures.tower import VisionTower
from nestvec.engine.types import FloatArray, Item, ItemOptions, Layout
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import BackendError, FormatError, ProbeError
from nestvec.export.two_towers.picture_graph import PICTURE_GRAPH
from nestvec.model_store.artefacts.precision import Precision
from nestvec.model_store.artefacts.probes import check_probes
from nestvec.model_store.folder.model_folder import ModelFolder

PICTURE_PROBES: Final = "picture_probes.npy"
SEED: Final = 20
OPTIONS: Final = ItemOptions(are_pictures=True)


def picture_vectors(
    backend: Backend, tower: VisionTower | PrefixTower, pooler: Pooler
) -> FloatArray:
    """Compute unit vectors of a few made pictures, [P, D], float32: blends of colours with more and more noise.

    Args:
        backend: Runs the graphs.
        tower: How the model takes pictures.
        pooler: Pools a decoder's states; a tower's own graph gives whole vectors.

    Raises:
        ProbeError: The graph cannot be run on them.
    """
    pooler = pooler if isinstance(tower, PrefixTower) else Pooler()
    random = np.random.default_rng(SEED)
    items, sizes = [], tower.probe_sizes()
    for number, (height, width) in enumerate(sizes):
        down, across = np.linspace(0, 1, height), np.linspace(0, 1, width)
        planes = (down, across), (1 - down, across), (down, 1 - across)
        blend = np.stack([np.outer(*ramps) for ramps in planes], -1)
        noise = random.random(blend.shape)
        share = number / (len(sizes) - 1)
        pixels = ((1 - share) * blend + share * noise) * 255
        items.append(_item(tower, np.ascontiguousarray(pixels.astype(np.uint8)), number))
    try:
        rows = raw_vectors(backend, items, pooler, [OPTIONS] * len(items))
    except BackendError as error:
        raise ProbeError(f"the graph of pictures fails: {error.__cause__ or error}") from error
    return finish(rows, dimensions=None, normalize=True)


def _item(tower: VisionTower | PrefixTower, pixels: PixelArray, number: int) -> Item:
    """Return a picture as the core takes it."""
    if isinstance(tower, PrefixTower):
        cut = tower.cut(pixels)
        return Item(cut.ids, number, pixels=cut.patches, grids=cut.grids)
    whole = tower.arranged(pixels)
    return Item(tower.ids(whole), number, pixels=whole)


def export_pictures(
    artefact: Path,
    folder: ModelFolder,
    open_backend: BackendFactory,
    on_tensor: Callable[[int], None],
) -> None:
    """Write the graph of a model's pictures into its artefact, where that of texts is, and its probes' vectors.

    Raises:
        FormatError: Configuration and weights do not fit each other, or a graph cannot be opened.
        ProbeError: It cannot be run, or gives values that are not finite.
    """
    assert folder.pictures is not None  # noqa: S101 - the caller has looked
    tower, path = folder.pictures.tower, artefact / PICTURE_GRAPH
    folder.pictures.export(folder.path, folder.config, path, on_tensor)
    options = BackendOptions(provider="cpu")
    backend, pooler = open_backend(path, Layout.PACKED, options), Pooler()
    try:
        if isinstance(tower, PrefixTower):
            decoder = open_backend(folder.graph(artefact), folder.layout, options)
            backend = PrefixBackend(decoder, backend)
            pooler = folder.head.pooler(artefact, open_backend)
        vectors = picture_vectors(backend, tower, pooler)
    finally:
        backend.close()
    check_probes(vectors, vectors, "cpu")
    np.save(artefact / PICTURE_PROBES, vectors)


def check_picture_probes(
    artefact: Path, backend: Backend, tower: VisionTower | PrefixTower, pooler: Pooler
) -> None:
    """Compute the probes again, and compare them with those that are kept.

    Args:
        artefact: Holds them.
        backend: Runs the graphs.
        tower: How the model takes pictures.
        pooler: Pools a decoder's states.

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
    check_probes(picture_vectors(backend, tower, pooler), stored, backend.info.provider)


def check_prefix_precision(folder: ModelFolder, precision: Precision) -> None:
    """Refuse a coarser precision of a decoder that reads pictures.

    Raises:
        FormatError: It is one.
    """
    is_prefix = folder.pictures is not None and isinstance(folder.pictures.tower, PrefixTower)
    if is_prefix and precision is not Precision.FP32:
        raise FormatError(
            f"precision {precision}: pictures run through the layers of texts, and nothing holds them to this "
            "precision; use fp32"
        )
