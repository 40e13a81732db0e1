"""The online cost model: finds the truth, adapts, and never predicts nonsense."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.core.batching.cost_model import MIN_SAMPLES, OnlineCostModel

PER_CELL = 1 / 2304  # token equivalents of a cell of attention


def batches(seed: int, count: int) -> list[tuple[int, float]]:
    """Return random (tokens, area) pairs as batches have them."""
    random = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        rows, longest = int(random.integers(1, 40)), int(random.integers(4, 256))
        pairs.append((rows * longest, rows * longest**2 * PER_CELL))
    return pairs


@given(
    seed=st.integers(0, 2**32 - 1),
    a=st.floats(0, 0.01),
    b=st.floats(1e-5, 1e-3),
    c=st.floats(0, 2e-3),
)
def test_it_finds_an_exact_law(seed: int, a: float, b: float, c: float) -> None:
    """From batches that obey t = a + b·T + c·A exactly it predicts others, whatever the coefficients."""
    model = OnlineCostModel()
    for tokens, area in batches(seed, 60):
        model.observe(tokens=tokens, area=area, took_s=a + b * tokens + c * area)
    tokens, area = 300, 300 * 60 * PER_CELL
    expected = a + b * tokens + c * area
    assert model.predict(tokens=tokens, area=area) == pytest.approx(expected, rel=0.02, abs=1e-5)


def test_its_error_is_small_with_noise_and_is_reported() -> None:
    """Ten per cent of noise give less than ten per cent of error, and none is reported while it is learning."""
    model, random = OnlineCostModel(), np.random.default_rng(1)
    errors = []
    for tokens, area in batches(2, 300):
        took_s = (0.001 + 2e-4 * tokens + 2e-5 * area) * random.uniform(0.9, 1.1)
        errors.append(model.observe(tokens=tokens, area=area, took_s=took_s))
    assert errors[:MIN_SAMPLES] == [None] * MIN_SAMPLES
    assert np.mean([e for e in errors[50:] if e is not None]) < 0.1


def test_it_follows_a_machine_that_slows_down() -> None:
    """Old batches are forgotten, so the prediction follows the machine as it is now."""
    model = OnlineCostModel()
    for factor in (1.0, 3.0):
        for tokens, area in batches(3, 250):
            model.observe(tokens=tokens, area=area, took_s=factor * 2e-4 * tokens)
    assert model.seconds_per_cost(512) == pytest.approx(6e-4, rel=0.05)


@given(
    took=st.lists(
        st.tuples(st.integers(1, 2000), st.integers(1, 300), st.floats(0, 10)),
        min_size=8,
        max_size=40,
    )
)
def test_predictions_are_finite_and_grow_with_the_batch(took: list[tuple[int, int, float]]) -> None:
    """Even from data that obey no law predictions are finite, never negative, and never smaller for a larger batch."""
    model = OnlineCostModel()
    for tokens, longest, took_s in took:
        model.observe(tokens=tokens, area=tokens * longest * PER_CELL, took_s=took_s)
    small = model.predict(tokens=10, area=100 * PER_CELL)
    large = model.predict(tokens=500, area=50_000 * PER_CELL)
    assert small is not None
    assert large is not None
    assert 0 <= small <= large < float("inf")


def test_batches_that_all_look_alike_are_enough() -> None:
    """The same query again and again, as an idle server sees it, is enough to predict that query."""
    model = OnlineCostModel()
    for _ in range(50):
        model.observe(tokens=12, area=144 * PER_CELL, took_s=0.004)
    assert model.predict(tokens=12, area=144 * PER_CELL) == pytest.approx(0.004, rel=0.01)


def test_long_texts_do_not_spoil_what_is_known_of_short_ones() -> None:
    """A text of 8,192 tokens takes as long as a thousand queries; the fit for queries stays within a few per cent."""
    model, random = OnlineCostModel(), np.random.default_rng(1)
    for number in range(400):
        tokens, area = (8192, 5600.0) if number % 10 == 0 else (int(random.integers(10, 250)), 2.0)
        took_s = (0.005 + 0.002 * tokens + 0.004 * area) * random.uniform(0.8, 1.2)
        model.observe(tokens=tokens, area=area, took_s=took_s)
    for tokens in (20, 100, 250):
        predicted_s = model.predict(tokens=tokens, area=2.0)
        assert predicted_s == pytest.approx(0.013 + 0.002 * tokens, rel=0.08)
    assert model.predict(tokens=8192, area=5600.0) == pytest.approx(38.8, rel=0.1)


def test_the_fitted_coefficients_are_published_with_their_units() -> None:
    """Seconds of a batch, of a token and of a token equivalent of attention; they predict what the model predicts."""
    model = OnlineCostModel(forgetting=1.0)
    assert OnlineCostModel().batch_seconds is None
    for tokens in (16, 64, 128, 256, 512):
        for area in (1.0, 8.0, 40.0):
            took_s = 0.0005 + 4e-5 * tokens + 2e-5 * area
            model.observe(tokens=tokens, area=area, took_s=took_s)
    seconds = model.batch_seconds
    assert seconds is not None
    assert seconds.fixed_s == pytest.approx(0.0005, rel=0.01)
    assert seconds.token_s == pytest.approx(4e-5, rel=0.01)
    assert seconds.area_s == pytest.approx(2e-5, rel=0.01)
    assert seconds.of(100, 20) == pytest.approx(model.predict(tokens=100, area=20) or 0)
