"""Prices of batches."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nestvec.engine.backend import LONG_TOKENS, AttentionKind, CostModel
from nestvec.engine.types import Layout

lengths_lists = st.lists(st.integers(1, 500), min_size=1, max_size=20)


@given(lengths=lengths_lists, extra=st.integers(1, 500))
def test_cost_grows_with_every_item(lengths: list[int], extra: int) -> None:
    """The scheduler's search needs a monotone price."""
    for layout in Layout:
        cost = CostModel(layout, 1 / 2304)
        assert cost(np.array([*lengths, extra])) > cost(np.array(lengths))


def test_padding_is_free_in_packed_linear_work_only() -> None:
    """A short item beside a long one costs its tokens packed, and a full row padded."""
    lengths = np.array([100, 10])
    assert CostModel(Layout.PACKED, 0.0)(lengths) == 110
    assert CostModel(Layout.PADDED, 0.0)(lengths) == 200
    assert CostModel(Layout.PACKED, 0.5)(lengths) == 110 + 0.5 * 2 * 100 * 100
    assert CostModel(Layout.PACKED, 0.5)(np.array([], np.int64)) == 0


kinds_lists = st.lists(
    st.builds(
        AttentionKind, st.integers(1, 30), st.sampled_from([0, 1, 5, 65, 128, 500]), st.booleans()
    ),
    max_size=4,
).map(tuple)


@given(
    kinds=kinds_lists,
    lengths=st.lists(st.integers(1, 700), min_size=1, max_size=12),
    place=st.integers(0, 11),
    more=st.integers(1, 400),
)
@example((AttentionKind(1, 1),), [LONG_TOKENS], 0, 1)
@example((AttentionKind(1, 1),), [10, 10, LONG_TOKENS], 2, 1)
@example((AttentionKind(1, 500),), [500, 500], 0, 1)
def test_cost_never_falls_where_a_text_grows_or_comes(
    kinds: tuple[AttentionKind, ...], lengths: list[int], place: int, more: int
) -> None:
    """Where long texts run in blocks, prices rise with each length and each text across that border too."""
    cost = CostModel.of_graph(Layout.PACKED, 384, kinds)
    grown = list(lengths)
    grown[place % len(lengths)] += more
    assert cost(np.array(grown)) > cost(np.array(lengths))
    assert cost(np.array([*lengths, more])) > cost(np.array(lengths))


def test_each_layer_is_priced_by_what_it_computes() -> None:
    """Squares without a window, their half where causal, blocks of queries and their keys for texts beyond a window."""

    def area(*lengths: int, window: int = 0, is_causal: bool = False) -> float:
        kinds = (AttentionKind(1, window, is_causal),)
        return CostModel.of_graph(Layout.PACKED, 64, kinds).area(np.array(lengths))

    assert area(100, 300) == 2 * 300**2
    assert area(300, 300, is_causal=True) == 300**2
    assert area(100, 192, window=65) == 2 * 192**2
    assert area(1024, window=65) == 8 * 128 * (128 + 2 * 64)
    assert area(300, 1024, window=65) == (3 + 8) * 128 * 256  # no padding to the longest
    assert area(1024, window=65, is_causal=True) == 8 * 128 * (128 + 64)
    assert area(1024, window=1024, is_causal=True) == 1024**2 / 2


def test_layers_of_several_kinds_cost_their_mean() -> None:
    """Eight layers of whole squares among twenty-two: a text of 8,192 tokens costs not three times what they say."""
    kinds = (AttentionKind(8), AttentionKind(14, 65))
    mixed = CostModel.of_graph(Layout.PACKED, 768, kinds)
    expected = (8 * 8192**2 + 14 * 64 * 128 * 256) / 22
    assert mixed.area(np.array([8192])) == expected
    assert mixed(np.array([8192])) == pytest.approx(8192 + expected / (6 * 768))
    whole = CostModel.of_bert(Layout.PACKED, 768)
    assert mixed(np.array([100, 192])) == whole(np.array([100, 192]))
    assert whole.area(np.array([300, 8192])) == 2 * 8192**2
