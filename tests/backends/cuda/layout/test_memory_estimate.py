"""How large a batch a device's memory is estimated to hold."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.backends.cuda.layout.memory_estimate import (
    CELL_BYTES,
    SPARE,
    MemoryEstimate,
    estimate_memory,
)
from nestvec.backends.cuda.layout.shapes import Shape
from nestvec.errors import BackendMemoryError, ModelMemoryError


def test_tokens_take_what_those_of_the_longest_inputs_took() -> None:
    """A quarter is spared on top."""
    runs: list[int] = []

    def taken_bytes(inputs: int) -> int:
        runs.append(inputs)
        return inputs * 100 * 80

    estimate = estimate_memory(taken_bytes, 500_000, 100, 1000)
    assert runs == [10]
    assert estimate.token_bytes == 80 * SPARE
    assert estimate.max_tokens == 500_000 / (80 * SPARE)
    assert estimate.spare_bytes == 400_000, "what graphs of small sizes may take"
    assert estimate.holds(Shape(4900, 49, 100))
    assert not estimate.holds(Shape(5100, 51, 100))


def test_smaller_runs_are_tried_until_one_fits() -> None:
    """Where not even one input fits, the model cannot be served."""

    def taken_bytes(inputs: int) -> int:
        if inputs > 3:
            raise BackendMemoryError("none")
        return 300

    assert estimate_memory(taken_bytes, 10, 10, 160).token_bytes == pytest.approx(64 * SPARE)

    def never(_: int) -> int:
        raise BackendMemoryError("none")

    with pytest.raises(ModelMemoryError, match="max_input_tokens"):
        estimate_memory(never, 10, 10, 160)


def test_padding_and_the_pooling_matrix_count() -> None:
    """Padded inputs all take what the longest does, and many short inputs make the matrix large."""
    padded = MemoryEstimate(1000, 1.0, is_padded=True)
    assert padded.holds(Shape(900, 9, 100)) is False, "rows are rounded up to 112"
    assert padded.holds(Shape(100, 8, 112))
    pooled = MemoryEstimate(10_000, 1.0, has_pooling_matrix=True)
    assert pooled.holds(Shape(1000, 1, 1000))
    assert not pooled.holds(Shape(1000, 1 + 9000 // (CELL_BYTES * 1000) + 1, 1000))


def test_every_input_counts_a_page_however_short_it_is() -> None:
    """Pages that the longest inputs fill are in the bytes of their tokens; each input has one more, partly empty."""
    page = 512 * 1024
    estimate = estimate_memory(lambda _: 100_000_000, 10**12, 2048, 16384, page_bytes=page)
    short = estimate.bytes_of(16384, 2048)
    assert short - estimate.bytes_of(16384, 8) == pytest.approx((2048 - 8) * page * SPARE)
    assert estimate.bytes_for(16384) == short


@given(st.integers(1, 100_000), st.booleans(), st.integers(0, 1_000_000))
def test_memory_reserved_for_a_budget_holds_its_batches(
    tokens: int,
    pools: bool,  # noqa: FBT001 - drawn
    page: int,
) -> None:
    """This holds however short the inputs are, as none costs less than eight tokens."""
    estimate = MemoryEstimate(0, 100.0, has_pooling_matrix=pools, page_bytes=page)
    estimate = replace(estimate, limit_bytes=estimate.bytes_for(tokens))
    assert estimate.holds(Shape(tokens, max(1, tokens // 8), min(tokens, 512))) or tokens < 8
