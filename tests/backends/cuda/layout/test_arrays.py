"""The arrays that a device graph is fed, and that its pooling is the reference's."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.backends.cuda.layout.arrays import packed_feeds
from nestvec.backends.cuda.layout.cost import DeviceCost
from nestvec.backends.cuda.layout.pooling_arrays import pooling_arrays
from nestvec.backends.cuda.layout.shapes import Shape, exact_shape
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import Item, ItemOptions, Layout
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
    """Also with prompts left out and with padding behind; the arithmetic of the graph's nodes is written out here."""
    true_lengths = np.array(lengths)
    skip = np.array([data.draw(st.integers(0, n - 1)) for n in lengths])
    padded, skips = np.append(true_lengths, [7, 0]), np.append(skip, [0, 0])
    random = np.random.default_rng(len(lengths))
    states = random.standard_normal((int(padded.sum()), WIDTH)).astype(np.float32)
    arrays = {name: make() for name, make in pooling_arrays(pooling, padded, skips, 64).items()}
    pooled = pooled_by_nodes(pooling, states, arrays)[: len(lengths)]
    offsets = np.append(0, np.cumsum(true_lengths))
    expected = pool(pooling, states[: true_lengths.sum()], offsets, skip)
    np.testing.assert_allclose(pooled, expected, rtol=2e-5, atol=2e-6)


def pooled_by_nodes(
    pooling: str, states: NDArray[np.float32], arrays: dict[str, NDArray[Any]]
) -> NDArray[np.float32]:
    """Pool as the nodes that `export/layers/device_pooling.py` adds to a graph, [T, H] to [B, H], float32."""
    if pooling in ("cls", "last_token"):
        picked: NDArray[np.float32] = states[arrays["pool_index"]]
        return picked
    if pooling == "max":
        largest: NDArray[np.float32] = states[arrays["pool_gather"]].max(axis=1)
        return largest
    is_own = arrays["pool_rows"][:, None] == arrays["pool_owners"][None, :]
    weights = np.where(is_own, arrays["pool_weights"][None, :], 0)
    summed: NDArray[np.float32] = (weights @ states) * arrays["pool_scales"][:, None]
    return summed


@given(LENGTHS)
def test_weights_are_exact_in_half_floats_and_sums_stay_small(lengths: list[int]) -> None:
    """Therefore float16 neither rounds the weights nor overflows."""
    counts = np.array(lengths)
    for pooling in ("mean", "mean_sqrt_len", "weighted_mean"):
        make = pooling_arrays(pooling, counts, np.zeros_like(counts), 64)
        weights = make["pool_weights"]()
        assert (weights.astype(np.float16).astype(np.float32) == weights).all()
        sums = np.add.reduceat(weights, np.cumsum(counts) - counts)
        assert sums.max() <= 1


@given(LENGTHS)
def test_inputs_lie_end_to_end_each_on_its_own_pages(lengths: list[int]) -> None:
    """Cumulative lengths, positions and cells follow from the lengths, and no page is shared."""
    items = [item(*range(1, n + 1)) for n in lengths]
    batch = collate(items, Layout.PACKED)
    feeds = packed_feeds(batch, exact_shape(batch.lengths), "mean", page_tokens=16)
    cumulative = feeds["cumulative_lengths"]
    assert cumulative.tolist() == [0, *np.cumsum(lengths)]
    assert cumulative.dtype == feeds["block_table"].dtype == np.int32
    assert feeds["positions"].tolist() == [p for n in lengths for p in range(n)]
    assert (feeds["ids"] == feeds["positions"] + 1).all()
    offsets = feeds["token_offset"]
    assert sorted(offsets.reshape(-1)) == list(range(offsets.size)), "each cell once"
    row = offsets.shape[1]
    cells = [b * row + s for b, n in enumerate(lengths) for s in range(n)]
    assert offsets.reshape(-1)[: len(cells)].tolist() == cells
    assert feeds["row_places"].max() == max(lengths) - 1, "no table of positions has more rows"
    used = [
        set(pages[: -(-n // 16)]) for pages, n in zip(feeds["block_table"], lengths, strict=True)
    ]
    assert len(set().union(*used)) == sum(map(len, used)) == feeds.pages, "no page is shared"


def test_a_batch_is_padded_with_inputs_that_have_positions_of_their_own() -> None:
    """Nobody reads what kernels compute of them, and they look up nothing that does not exist."""
    batch = collate([item(5, 6, 7), item(8)], Layout.PACKED)
    feeds = packed_feeds(batch, Shape(32, 6, 16), "mean", page_tokens=0)
    assert feeds.lengths.tolist() == [3, 1, 16, 12, 0, 0]
    assert feeds["ids"].tolist() == [5, 6, 7, 8, *[0] * 28]
    assert feeds["positions"].max() == 15
    assert feeds["gather"].max() < 32


def test_an_input_costs_its_own_square_and_never_nothing() -> None:
    """Unlike on the CPU a long neighbour does not make it dearer, unless scores have a bias of their own."""
    cost, padded = DeviceCost(64), DeviceCost(64, is_padded=True)
    alone, both = np.array([512]), np.array([512, 8])
    assert cost(both) - cost(alone) == pytest.approx(8 + 8 * 128 / 384)
    assert padded(both) - padded(alone) > 512
    assert cost(np.array([1])) >= 8
    assert cost(np.array([], np.int64)) == 0


def test_items_that_want_few_columns_let_a_batch_be_cut() -> None:
    """The batch has as many columns as the item that wants most, and all where one wants all."""
    ids = np.array([1], np.int32)
    few = [ItemOptions(columns=4, is_half=True), ItemOptions(columns=8, is_half=True)]
    batch = collate([Item(ids)] * 2, Layout.PACKED, few, pools=True)
    assert (batch.columns, batch.is_half) == (8, True)
    mixed = collate([Item(ids)] * 3, Layout.PACKED, [*few, ItemOptions()], pools=True)
    assert (mixed.columns, mixed.is_half) == (0, False)
