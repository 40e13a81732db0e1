"""How large a batch a device's memory is estimated to hold."""

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

    def free_bytes_after(inputs: int) -> int:
        runs.append(inputs)
        return 1_000_000 - inputs * 100 * 80

    estimate = estimate_memory(free_bytes_after, 1_000_000, 500_000, 100, 1000)
    assert runs == [10]
    assert estimate.token_bytes == 80 * SPARE
    assert estimate.max_tokens == 500_000 / (80 * SPARE)
    assert estimate.holds(Shape(4900, 49, 100))
    assert not estimate.holds(Shape(5100, 51, 100))


def test_smaller_runs_are_tried_until_one_fits() -> None:
    """Where not even one input fits, the model cannot be served."""

    def free_bytes_after(inputs: int) -> int:
        if inputs > 3:
            raise BackendMemoryError("none")
        return 0

    assert estimate_memory(free_bytes_after, 300, 10, 10, 160).token_bytes == pytest.approx(
        64 * SPARE
    )

    def never(_: int) -> int:
        raise BackendMemoryError("none")

    with pytest.raises(ModelMemoryError, match="max_input_tokens"):
        estimate_memory(never, 300, 10, 10, 160)


def test_padding_and_the_pooling_matrix_count() -> None:
    """Padded inputs all take what the longest does, and many short inputs make the matrix large."""
    padded = MemoryEstimate(1000, 1.0, is_padded=True)
    assert padded.holds(Shape(900, 9, 100)) is False, "rows are rounded up to 112"
    assert padded.holds(Shape(100, 8, 112))
    pooled = MemoryEstimate(10_000, 1.0, has_pooling_matrix=True)
    assert pooled.holds(Shape(1000, 1, 1000))
    assert not pooled.holds(Shape(1000, 1 + 9000 // (CELL_BYTES * 1000) + 1, 1000))


@given(st.integers(1, 100_000), st.booleans())
def test_memory_reserved_for_a_budget_holds_its_batches(tokens: int, pools: bool) -> None:  # noqa: FBT001 - drawn
    """This holds however short the inputs are, as none costs less than eight tokens."""
    estimate = MemoryEstimate(0, 100.0, has_pooling_matrix=pools)
    estimate = MemoryEstimate(estimate.bytes_for(tokens), 100.0, has_pooling_matrix=pools)
    assert estimate.holds(Shape(tokens, max(1, tokens // 8), min(tokens, 512))) or tokens < 8
