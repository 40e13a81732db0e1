"""What a device graph is fed, and that its pooling is the reference's."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.backends.cuda.arrays import feeds
from nestvec.backends.cuda.cost import DeviceCost
from nestvec.backends.cuda.pooling_arrays import pooling_arrays
from nestvec.backends.cuda.shapes import Shape, exact_shape
from nestvec.engine.core.collate import collate
from nestvec.engine.types import Item, Layout
from nestvec.engine.vectors.pooling import POOLINGS, pool
from numpy.typing import NDArray

from tests.support.fakes import item

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=12)
WIDTH = 5


@given(LENGTHS, st.data())
@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_a_graph_pools_as_the_reference_does(
    pooling: str, lengths: list[int], data: st.DataObject
) -> None:
    """With prompts left out, and with padding behind; the nodes' arithmetic is written out here."""
    own = np.array(lengths)
    skip = np.array([data.draw(st.integers(0, n - 1)) for n in lengths])
    padded, skips = np.append(own, [7, 0]), np.append(skip, [0, 0])
    random = np.random.default_rng(len(lengths))
    states = random.standard_normal((int(padded.sum()), WIDTH)).astype(np.float32)
    made = {name: make() for name, make in pooling_arrays(pooling, padded, skips, 64).items()}
    found = pooled_by_nodes(pooling, states, made)[: len(own)]
    offsets = np.append(0, np.cumsum(own))
    expected = pool(pooling, states[: own.sum()], offsets, skip)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def pooled_by_nodes(
    pooling: str, states: NDArray[np.float32], made: dict[str, NDArray[Any]]
) -> NDArray[np.float32]:
    """What `export/device_pooling.py` adds to a graph."""
    if pooling in ("cls", "last_token"):
        chosen: NDArray[np.float32] = states[made["pool_index"]]
        return chosen
    if pooling == "max":
        found: NDArray[np.float32] = states[made["pool_gather"]].max(axis=1)
        return found
    is_own = made["pool_rows"][:, None] == made["pool_owners"][None, :]
    weights = np.where(is_own, made["pool_weights"][None, :], 0)
    summed: NDArray[np.float32] = (weights @ states) * made["pool_scales"][:, None]
    return summed


@given(LENGTHS)
def test_weights_are_exact_in_half_floats_and_sums_stay_small(lengths: list[int]) -> None:
    """So that float16 neither rounds the weights nor overflows."""
    own = np.array(lengths)
    for pooling in ("mean", "mean_sqrt_len", "weighted_mean"):
        make = pooling_arrays(pooling, own, np.zeros_like(own), 64)
        weights = make["pool_weights"]()
        assert (weights.astype(np.float16).astype(np.float32) == weights).all()
        sums = np.add.reduceat(weights, np.cumsum(own) - own)
        assert sums.max() <= 1


@given(LENGTHS)
def test_inputs_lie_end_to_end_each_on_its_own_pages(lengths: list[int]) -> None:
    """Cumulative lengths, positions, cells, pages."""
    items = [item(*range(1, n + 1)) for n in lengths]
    batch = collate(items, Layout.PACKED)
    made = feeds(batch, exact_shape(batch.lengths), "mean", page_tokens=16)
    cumulative = made["cumulative_lengths"]
    assert cumulative.tolist() == [0, *np.cumsum(lengths)]
    assert cumulative.dtype == made["block_table"].dtype == np.int32
    assert made["positions"].tolist() == [p for n in lengths for p in range(n)]
    assert (made["ids"] == made["positions"] + 1).all()
    offsets = made["token_offset"]
    assert sorted(offsets.reshape(-1)) == list(range(offsets.size)), "each cell once"
    row = offsets.shape[1]
    cells = [b * row + s for b, n in enumerate(lengths) for s in range(n)]
    assert offsets.reshape(-1)[: len(cells)].tolist() == cells
    assert made["row_places"].max() == max(lengths) - 1, "no table of positions has more rows"
    used = [
        set(pages[: -(-n // 16)]) for pages, n in zip(made["block_table"], lengths, strict=True)
    ]
    assert len(set().union(*used)) == sum(map(len, used)) == made.pages, "no page is shared"


def test_a_batch_is_filled_up_with_padding_that_has_positions_of_its_own() -> None:
    """Whatever kernels compute of it, it is read by nobody and looks nothing up that is not there."""
    batch = collate([item(5, 6, 7), item(8)], Layout.PACKED)
    made = feeds(batch, Shape(32, 6, 16), "mean", page_tokens=0)
    assert made.lengths.tolist() == [3, 1, 16, 12, 0, 0]
    assert made["ids"].tolist() == [5, 6, 7, 8, *[0] * 28]
    assert made["positions"].max() == 15
    assert made["gather"].max() < 32


def test_an_input_costs_its_own_square_and_something_at_least() -> None:
    """Unlike on CPU a long neighbour makes it no dearer, unless scores have a bias."""
    cost, padded = DeviceCost(64), DeviceCost(64, is_padded=True)
    one, both = np.array([512]), np.array([512, 8])
    assert cost(both) - cost(one) == pytest.approx(8 + 8 * 128 / 384)
    assert padded(both) - padded(one) > 512
    assert cost(np.array([1])) >= 8
    assert cost(np.array([], np.int64)) == 0


def test_items_that_want_few_columns_let_a_batch_be_cut() -> None:
    """As many as the one that wants most; all where one wants all."""
    ids = np.array([1], np.int32)
    few = [Item(ids, columns=4, is_half=True), Item(ids, columns=8, is_half=True)]
    batch = collate(few, Layout.PACKED, pools=True)
    assert (batch.columns, batch.is_half) == (8, True)
    mixed = collate([*few, Item(ids)], Layout.PACKED, pools=True)
    assert (mixed.columns, mixed.is_half) == (0, False)
