"""Texts with pictures among their tokens to the arrays of a decoder, and of the tower that runs before it. Pure.

Source: `get_rope_index` and `get_vision_position_ids` of transformers' modeling_qwen3_vl.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.backend import LONG_TOKENS
from nestvec.engine.pictures.picture import PatchGrid
from nestvec.engine.types import IdArray, Item

AXES: Final = 3  # time, row, column
# Of one run of the tower, unless a single picture has more: beyond it states leave the caches of a CPU.
MAX_PATCHES: Final = 1_024


@dataclass(frozen=True, slots=True)
class PlacedPicture:
    """A picture among the tokens of a batch.

    Attributes:
        grid: Its rows and columns of patches, and how many of either make a token.
        patches: (N, values), uint8.
        places: Which of the batch's tokens are its own, (P,), int64.
    """

    grid: PatchGrid
    patches: NDArray[np.uint8]
    places: NDArray[np.int64]


def placed_pictures(items: Sequence[Item]) -> list[PlacedPicture]:
    """Return the pictures of all items, in their order."""
    places = np.flatnonzero(np.concatenate([item.ids for item in items]) < 0)
    pictures, token = [], 0
    for item in items:
        patch = 0
        for grid in item.grids:
            count = grid[0] * grid[1]
            tokens = count // grid[2] ** 2
            assert item.pixels is not None  # noqa: S101 - pictures have pixels
            own = item.pixels[patch : patch + count]
            pictures.append(PlacedPicture(grid, own, places[token : token + tokens]))
            patch, token = patch + count, token + tokens
    return pictures


def runs_of(pictures: Sequence[PlacedPicture]) -> list[list[PlacedPicture]]:
    """Return which pictures the tower takes in one run: short ones of any sizes, longer ones of one number of patches.

    Longer sequences of several lengths would be padded, and have scores of all patches with all in memory.
    """
    runs: dict[tuple[int, int], list[PlacedPicture]] = {}
    rooms: dict[int, tuple[int, int]] = {}
    for picture in pictures:
        count = len(picture.patches)
        kind = 0 if count <= LONG_TOKENS else count
        number, room = rooms.get(kind, (0, MAX_PATCHES))
        if count > room and (kind, number) in runs:
            number, room = number + 1, MAX_PATCHES
        rooms[kind] = number, room - count
        runs.setdefault((kind, number), []).append(picture)
    return list(runs.values())


def token_ids(items: Sequence[Item]) -> NDArray[np.int64]:
    """Return the ids of all items, (T,); those that stand for pictures are 0, as rows take their place."""
    return np.maximum(np.concatenate([item.ids for item in items], dtype=np.int64), 0)


def token_axes(items: Sequence[Item]) -> NDArray[np.int64]:
    """Return the places of all tokens in time, rows and columns, (3, T)."""
    return np.concatenate([_axes_of(item.ids, item.grids) for item in items], axis=1)


def _axes_of(ids: IdArray, grids: Sequence[PatchGrid]) -> NDArray[np.int64]:
    """Return the places of an input's tokens, (3, n).

    A text's tokens go on in all three; a picture's have one time, and rows and columns from there; what follows goes on
    behind the longer side. A token of a text stands between any two pictures.
    """
    is_picture = ids < 0
    starts = np.flatnonzero(is_picture & ~np.concatenate([[False], is_picture[:-1]]))
    parts, place, position = [], 0, 0
    for start, (patch_rows, patch_columns, merge) in zip(starts.tolist(), grids, strict=True):
        rows, columns = patch_rows // merge, patch_columns // merge
        parts.append(_run(position, start - place))
        position += start - place
        time = np.zeros(rows * columns, np.int64)
        row, column = np.divmod(np.arange(rows * columns, dtype=np.int64), columns)
        parts.append(np.stack([time, row, column]) + position)
        position += max(rows, columns)
        place = start + rows * columns
    parts.append(_run(position, len(ids) - place))
    return np.concatenate(parts, axis=1)


def _run(start: int, count: int) -> NDArray[np.int64]:
    return np.tile(np.arange(start, start + count, dtype=np.int64), (AXES, 1))


def patch_grid(grids: Sequence[PatchGrid]) -> NDArray[np.int64]:
    """Return of each patch its row and column, and how many rows and columns its picture has: (4, N)."""
    return np.concatenate([_patches_of(*grid) for grid in grids], axis=1)


def _patches_of(rows: int, columns: int, merge: int) -> NDArray[np.int64]:
    shape = (rows // merge, columns // merge, merge, merge)
    row = np.arange(rows).reshape(shape[0], 1, merge, 1)
    column = np.arange(columns).reshape(1, shape[1], 1, merge)
    values = (row, column, np.array(rows), np.array(columns))
    return np.stack([np.broadcast_to(each, shape).reshape(-1) for each in values]).astype(np.int64)
