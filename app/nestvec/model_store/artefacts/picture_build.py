"""Builds the graph of pictures beside that of texts, and holds it to its own golden probes at each start."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from nestvec.engine.backend import Backend, BackendFactory, BackendOptions
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.pictures.prefix import PicturePrefix
from nestvec.engine.pictures.prefix_backend import PrefixBackend
from nestvec.engine.pictures.preprocessing import PictureTower, content_ids
from nestvec.engine.types import FloatArray, Item, ItemOptions, Layout
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import BackendError, FormatError, ProbeError
from nestvec.export.two_towers.picture_graph import PICTURE_GRAPH, export_picture_graph
from nestvec.export.vision_language.vision_graph import export_vision_graph
from nestvec.model_store.artefacts.precision import Precision
from nestvec.model_store.artefacts.probes import check_probes
from nestvec.model_store.folder.model_folder import ModelFolder

PICTURE_PROBES: Final = "picture_probes.npy"
PROBE_COUNT: Final = 3
SEED: Final = 20
OPTIONS: Final = ItemOptions(are_pictures=True)
# Of decoders: widths in heights of a square, a wide picture and a high one.
SHAPES: Final = (1.0, 2.5, 0.4)


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
    if isinstance(folder.pictures.tower, PicturePrefix):
        np.save(
            artefact / PICTURE_PROBES, _export_prefix(artefact, folder, open_backend, on_tensor)
        )
        return
    path = artefact / PICTURE_GRAPH
    export_picture_graph(folder.path, folder.config, folder.pictures.scale, path, on_tensor)
    backend = open_backend(path, Layout.PACKED, BackendOptions(provider="cpu"))
    try:
        vectors = picture_vectors(backend, folder.pictures.tower)
    finally:
        backend.close()
    check_probes(vectors, vectors, "cpu")
    np.save(artefact / PICTURE_PROBES, vectors)


def check_picture_probes(
    artefact: Path, backend: Backend, tower: PictureTower | PicturePrefix, pooler: Pooler
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
    if isinstance(tower, PicturePrefix):
        vectors = _prefix_vectors(backend, tower, pooler)
    else:
        vectors = picture_vectors(backend, tower)
    check_probes(vectors, stored, backend.info.provider)


def check_prefix_precision(folder: ModelFolder, precision: Precision) -> None:
    """Refuse a coarser precision of a decoder that reads pictures.

    Raises:
        FormatError: It is one.
    """
    is_prefix = folder.pictures is not None and isinstance(folder.pictures.tower, PicturePrefix)
    if is_prefix and precision is not Precision.FP32:
        raise FormatError(
            f"precision {precision}: pictures run through the layers of texts, and nothing holds them to this "
            "precision; use fp32"
        )


def _prefix_vectors(backend: Backend, tower: PicturePrefix, pooler: Pooler) -> FloatArray:
    """Compute unit vectors of a few made pictures, [P, D], float32: blends of colours with more and more noise.

    Raises:
        ProbeError: The graphs cannot be run on them.
    """
    random = np.random.default_rng(SEED)
    items = []
    for number, shape in enumerate(SHAPES):
        high = math.sqrt(tower.min_pixels / shape)
        width, height = tower.resized_size(round(high * shape), round(high))
        down, across = np.linspace(0, 1, height), np.linspace(0, 1, width)
        planes = (down, across), (1 - down, across), (down, 1 - across)
        blend = np.stack([np.outer(*ramps) for ramps in planes], -1)
        share = number / (len(SHAPES) - 1)
        pixels = ((1 - share) * blend + share * random.random(blend.shape)) * 255
        patches, grid = tower.cut(np.ascontiguousarray(pixels.astype(np.uint8)))
        around = [np.array([place], np.int32) for place in (tower.start_id, tower.end_id)]
        ids = np.concatenate([around[0], tower.ids(patches, grid), around[1]])
        items.append(Item(ids, number, pixels=patches, grids=(grid,)))
    try:
        rows = raw_vectors(backend, items, pooler, [OPTIONS] * len(items))
    except BackendError as error:
        raise ProbeError(f"the graph of pictures fails: {error.__cause__ or error}") from error
    return finish(rows, dimensions=None, normalize=True)


def _export_prefix(
    artefact: Path,
    folder: ModelFolder,
    open_backend: BackendFactory,
    on_tensor: Callable[[int], None],
) -> FloatArray:
    """Write the graph of a model's pictures into its artefact; the decoder's is there.

    Returns:
        The vectors of its probes, [P, D], float32.

    Raises:
        FormatError: Configuration and weights do not fit each other, or a graph cannot be opened.
        ProbeError: It cannot be run, or gives values that are not finite.
    """
    pictures = folder.pictures
    assert pictures is not None  # noqa: S101 - the caller has looked
    assert isinstance(pictures.tower, PicturePrefix)  # noqa: S101 - likewise
    path = artefact / PICTURE_GRAPH
    export_vision_graph(folder.path, folder.config, pictures.scale, path, on_tensor)
    options = BackendOptions(provider="cpu")
    decoder, tower = (
        open_backend(graph, folder.layout, options) for graph in (folder.graph(artefact), path)
    )
    backend = PrefixBackend(decoder, tower)
    try:
        pooler = folder.head.pooler(artefact, open_backend)
        vectors = _prefix_vectors(backend, pictures.tower, pooler)
    finally:
        backend.close()
    check_probes(vectors, vectors, "cpu")
    return vectors
