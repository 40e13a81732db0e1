"""Arrays of a batch, packed and padded."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import Item, Layout

ids = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=7), min_size=1, max_size=6)


@given(inputs=ids)
def test_packed_arrays_lead_to_the_padded_view_and_back(inputs: list[list[int]]) -> None:
    """Gather then scatter is the identity, and each row of the view starts with its own tokens."""
    batch = collate([Item(ids=np.asarray(i, np.int32)) for i in inputs], Layout.PACKED)
    arrays = batch.arrays
    flat = [token for tokens in inputs for token in tokens]
    assert arrays["ids"].tolist() == flat
    assert arrays["positions"].tolist() == [p for tokens in inputs for p in range(len(tokens))]
    view = arrays["ids"][arrays["gather"]]
    for row, tokens in zip(view, inputs, strict=True):
        assert row[: len(tokens)].tolist() == tokens
    assert view.reshape(-1)[arrays["scatter"]].tolist() == flat
    assert arrays["lengths"].dtype == np.int32
    assert bool(arrays["has_equal_lengths"]) == (len({len(tokens) for tokens in inputs}) == 1)
    assert batch.offsets.tolist() == [0, *np.cumsum([len(i) for i in inputs]).tolist()]


@given(inputs=ids)
def test_padded_arrays_mask_what_is_padding(inputs: list[list[int]]) -> None:
    """The attention mask picks exactly the tokens, and all else is zeros."""
    batch = collate([Item(ids=np.asarray(i, np.int32)) for i in inputs], Layout.PADDED)
    mask = batch.arrays["attention_mask"].astype(bool)
    masked = batch.arrays["input_ids"][mask].tolist()
    assert masked == [token for tokens in inputs for token in tokens]
    assert (batch.arrays["input_ids"][~mask] == 0).all()
    assert not batch.arrays["token_type_ids"].any()
