"""Probabilities of labels, and conformal sets that hold the right one as often as was promised."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.engine.types import Float64Array, FloatArray
from nestvec.engine.vectors.label_calibration import (
    MAX_SCORES,
    LabelCalibration,
    kept_scores,
    softmax_at,
)
from nestvec.errors import InputError
from numpy.typing import NDArray

LABELS = 5
ALPHAS = (0.05, 0.1, 0.3)


def calibration(scores: Float64Array) -> LabelCalibration:
    """Return what is known after so many texts of one label each."""
    sigmoids, thresholds = np.zeros((LABELS, 2)), np.full(LABELS, 0.5)
    return LabelCalibration(0.1, kept_scores(scores), len(scores), sigmoids, thresholds)


def synthetic(count: int) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return cosines `[N, K]` of texts whose right label is a little nearer than others, and the right labels `[N]`."""
    random = np.random.default_rng(0)
    right = random.integers(0, LABELS, count)
    cosines = random.normal(0.2, 0.12, (count, LABELS))
    cosines[np.arange(count), right] += 0.15
    return cosines.astype(np.float32), right


@pytest.mark.parametrize("alpha", ALPHAS)
def test_sets_cover_as_often_as_promised(alpha: float) -> None:
    """Over 1,000 random halves of the texts, sets from one half hold the right labels of the other."""
    cosines, right = synthetic(400)
    scores = 1 - softmax_at(cosines, 0.1)[np.arange(400), right]
    random = np.random.default_rng(1)
    covered = []
    for _ in range(1000):
        order = random.permutation(400)
        threshold = calibration(scores[order[:200]]).conformal_threshold(alpha)
        covered.append((scores[order[200:]] <= threshold).mean())
    # And no more often than it must: larger sets would be easy.
    assert 1 - alpha - 0.005 <= np.mean(covered) <= 1 - alpha + 0.015


@pytest.mark.parametrize("count", [1, 9, 200, MAX_SCORES, MAX_SCORES + 1, 2501, 30_000])
def test_thresholds_are_the_rank_that_the_theory_names(count: int) -> None:
    """Up to a thousand scores it is exactly that score; of quantiles it is one at most a thousandth of ranks above."""
    scores = np.random.default_rng(2).permutation(np.arange(1, count + 1) / (count + 1))
    learned = calibration(scores)
    assert len(learned.scores) == min(count, MAX_SCORES)
    for alpha in (0.5, 0.2, 0.1, 0.0123, 1 / (count + 1) + 1e-12):
        rank = math.ceil((count + 1) * (1 - alpha) - 1e-9)
        if not 1 <= rank <= count:
            continue
        found = round(learned.conformal_threshold(alpha) * (count + 1))
        if count <= MAX_SCORES:
            assert found == rank
        else:
            assert rank <= found <= rank + math.ceil(count / MAX_SCORES)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_any_error_has_a_threshold_or_a_reason(count: int, alpha: float) -> None:
    """Whatever is asked for, there is a score that enough others do not exceed, or a refusal of that field."""
    scores = np.linspace(0, 1, count)
    learned = calibration(scores)
    if alpha < 1 / (count + 1) - 1e-9:
        with pytest.raises(InputError, match="--calibrate") as caught:
            learned.conformal_threshold(alpha)
        assert caught.value.param == "alpha"
        assert len(caught.value.message) < 400
    elif alpha > 1 / (count + 1) + 1e-9:
        below = (scores <= learned.conformal_threshold(alpha) + 1e-12).mean()
        assert below >= (1 - alpha) * (count + 1) / count - 1e-9


def test_too_few_texts_are_told_how_many_are_needed() -> None:
    """An error of 1% needs 99 scores."""
    learned = calibration(np.linspace(0, 1, 50))
    with pytest.raises(
        InputError, match=r"needs scores of 99 .* there are 50: choose at least 0\.02"
    ):
        learned.conformal_threshold(0.01)
    assert calibration(np.linspace(0, 1, 99)).conformal_threshold(0.01) == 1.0


def test_probabilities_are_plain_formulas() -> None:
    """A softmax at a temperature, and a sigmoid of each label's own; labels apply from their thresholds on."""
    cosines = np.array([[0.1, 0.5, 0.3, 0.0, -0.2], [0.9, 0.0, 0.0, 0.0, 0.0]], np.float32)
    raised = np.exp(cosines.astype(np.float64) / 0.1)
    expected = raised / raised.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax_at(cosines, 0.1), expected, atol=1e-12)
    sigmoids = np.array([[10, -5], [1, 0], [0, 0], [0, -3], [20, 2]], np.float64)
    thresholds = np.array([0.9, 0.6, 0.5, 0.5, 0.5])
    learned = LabelCalibration(None, np.zeros(0), 0, sigmoids, thresholds)
    independent = learned.independent(cosines)
    logits = cosines.astype(np.float64) * sigmoids[:, 0] + sigmoids[:, 1]
    np.testing.assert_allclose(independent, 1 / (1 + np.exp(-logits)), atol=1e-12)
    assert learned.chosen(independent).tolist() == [
        [False, True, True, False, False],
        [True, False, True, False, True],
    ]
