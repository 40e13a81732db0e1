"""The budget of a micro-batch: it never leaves its bounds, and comes back."""

from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.core.batching.budget import MIN_BATCH_TOKENS, Budget


def test_memory_halves_it_and_batches_give_it_back() -> None:
    """The memory bound halves when memory is short, and grows back with every batch, as congestion windows do."""
    budget = Budget(1024)
    budget.memory_was_short(800)
    assert budget.now == 400
    budget.memory_was_short(300)
    assert budget.now == 150
    for _ in range(200):
        budget.batch_ran()
    assert budget.now == 1024


@given(
    st.floats(100, 1e6),
    st.lists(st.one_of(st.none(), st.floats(1, 1e6)), max_size=50),
    st.one_of(st.none(), st.floats(0.1, 1e6)),
)
def test_it_stays_within_bounds(
    max_cost: float, events: list[float | None], within_time: float | None
) -> None:
    """The budget is never over what is set, and never under the minimum."""
    budget = Budget(max_cost, within_time=within_time)
    for cost in events:
        if cost is None:
            budget.batch_ran()
        else:
            budget.memory_was_short(cost)
            assert budget.now <= max(MIN_BATCH_TOKENS, cost / 2)
        assert min(max_cost, MIN_BATCH_TOKENS) <= budget.now <= max_cost


def test_what_is_short_is_known_before_any_batch_ran() -> None:
    """An item is short by what was learned, else by the first estimate, else by the budget; never below the minimum."""
    budget = Budget(256, first_within_time=1000.0)
    assert (budget.max_short_cost, budget.now) == (1000.0, 256)
    budget.within_time = 300.0
    assert budget.max_short_cost == 300.0
    budget.within_time = 3.0
    assert budget.max_short_cost == MIN_BATCH_TOKENS
    assert Budget(512).max_short_cost == 512
