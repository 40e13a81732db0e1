"""How large a batch a device's memory is said to hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.backends.cuda.memory_estimate import CELL_BYTES, SPARE, Room, measured_room
from nestvec.backends.cuda.shapes import Shape
from nestvec.errors import BackendMemoryError, ModelMemoryError


def test_what_a_run_of_the_longest_took_is_what_tokens_take() -> None:
    """With something to spare."""
    asked: list[int] = []

    def free_after(inputs: int) -> int:
        asked.append(inputs)
        return 1_000_000 - inputs * 100 * 80

    room = measured_room(free_after, 1_000_000, 500_000, 100, 1000)
    assert asked == [10]
    assert room.token_bytes == 80 * SPARE
    assert room.max_tokens == 500_000 / (80 * SPARE)
    assert room.holds(Shape(4900, 49, 100))
    assert not room.holds(Shape(5100, 51, 100))


def test_smaller_runs_are_tried_until_one_fits() -> None:
    """And where not even one input does, the model cannot be served."""

    def free_after(inputs: int) -> int:
        if inputs > 3:
            raise BackendMemoryError("none")
        return 0

    assert measured_room(free_after, 300, 10, 10, 160).token_bytes == pytest.approx(64 * SPARE)

    def never(_: int) -> int:
        raise BackendMemoryError("none")

    with pytest.raises(ModelMemoryError, match="max_input_tokens"):
        measured_room(never, 300, 10, 10, 160)


def test_padding_and_the_pooling_matrix_count() -> None:
    """Where inputs take what the longest does, and where many short ones make the matrix large."""
    padded = Room(1000, 1.0, is_padded=True)
    assert padded.holds(Shape(900, 9, 100)) is False, "rows are rounded up to 112"
    assert padded.holds(Shape(100, 8, 112))
    pooled = Room(10_000, 1.0, pools=True)
    assert pooled.holds(Shape(1000, 1, 1000))
    assert not pooled.holds(Shape(1000, 1 + 9000 // (CELL_BYTES * 1000) + 1, 1000))


@given(st.integers(1, 100_000), st.booleans())
def test_what_is_reserved_for_a_budget_holds_its_batches(tokens: int, pools: bool) -> None:  # noqa: FBT001 - drawn
    """However short its inputs are: none costs less than eight tokens."""
    room = Room(0, 100.0, pools=pools)
    room = Room(room.bytes_for(tokens), 100.0, pools=pools)
    assert room.holds(Shape(tokens, max(1, tokens // 8), min(tokens, 512))) or tokens < 8
