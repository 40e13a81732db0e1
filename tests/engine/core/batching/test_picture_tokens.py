"""Texts with pictures among their tokens, as arrays: places of tokens and patches, and what the tower takes at once."""

import numpy as np
from nestvec.engine.core.batching import picture_tokens
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.pictures.picture import PatchGrid
from nestvec.engine.types import Item, ItemOptions, Layout

OPTIONS = ItemOptions(are_pictures=True)


def item(*parts: int | PatchGrid) -> Item:
    """Return an item of texts, by their numbers of tokens, and pictures, by their grids."""
    ids: list[int] = []
    grids: list[PatchGrid] = []
    values: list[int] = []
    for part in parts:
        if isinstance(part, int):
            ids += [7] * part
            continue
        rows, columns, merge = part
        ids += [-1 - len(grids)] * (rows * columns // merge**2)
        values += [len(grids)] * (rows * columns)
        grids.append(part)
    pixels = np.array(values, np.uint8).reshape(-1, 1)
    return Item(np.array(ids, np.int32), pixels=pixels if grids else None, grids=tuple(grids))


def test_tokens_of_pictures_have_rows_and_columns() -> None:
    """A picture has one time, rows and columns from there; what follows goes on behind its longer side."""
    axes = picture_tokens.token_axes([item(2, (4, 6, 2), 1), item(3)])
    assert axes.tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5, 0, 1, 2],
        [0, 1, 2, 2, 2, 3, 3, 3, 5, 0, 1, 2],
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 0, 1, 2],
    ]


def test_patches_of_a_token_stand_together() -> None:
    """Each patch has its row, its column, and how many of both its picture has."""
    grid = picture_tokens.patch_grid([(2, 4, 2), (1, 2, 1)])
    assert grid[0].tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 0, 0]
    assert grid[1].tolist() == [0, 1, 0, 1, 2, 3, 2, 3, 0, 1]
    assert grid[2:].T.tolist() == [[2, 4]] * 8 + [[1, 2]] * 2


def test_the_tower_takes_long_pictures_of_one_length_only() -> None:
    """Short ones run together whatever their sizes; rows and places stay together, in any order of the runs."""
    long, longer = (16, 14, 2), (16, 16, 2)
    items = [item(1, (2, 2, 2), 1, long, 1), item(2, longer, 1, (4, 2, 2), 1, long, 1)]
    batch = collate(items, Layout.PACKED, [OPTIONS] * 2)
    assert [run.lengths.tolist() for run in batch.prefix] == [[4, 8], [224, 224], [256]]
    rows = np.concatenate([run.arrays["pixels"][:, 0] for run in batch.prefix])
    ids = np.concatenate([each.ids for each in items])[batch.arrays["picture_places"]]
    assert (np.repeat(-1 - ids, 4) == rows).all()
    assert (batch.arrays["ids"] >= 0).all()
    assert [run.arrays["patch_grid"].shape for run in batch.prefix] == [(4, 12), (4, 448), (4, 256)]


def test_runs_of_the_tower_are_bounded() -> None:
    """However many pictures a batch has, patches of a run stay in a CPU's caches; one picture alone may have more."""
    half = (32, 16, 2)
    pictures = picture_tokens.placed_pictures([item(1, half, 1, half, 1, half, 1, (64, 32, 2), 1)])
    counts = [len(run) for run in picture_tokens.runs_of(pictures)]
    assert counts == [2, 1, 1]


def test_texts_of_such_a_model_have_no_pictures() -> None:
    """Their places in all three axes are their positions, and nothing runs before them."""
    batch = collate([item(3), item(2)], Layout.PACKED)
    assert batch.arrays["axes"].tolist() == [[0, 1, 2, 0, 1]] * 3
    assert not len(batch.arrays["picture_places"])
    assert not batch.prefix
