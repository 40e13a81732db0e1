"""Temperature, sigmoids and thresholds are what plain searches find, and figures what plain code measures."""

import numpy as np
import pytest
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.label_calibration import softmax_at
from nestvec.errors import FormatError
from nestvec.tools.quality.maps.label_fitting import (
    Labels,
    fit_labels,
    fit_sigmoids,
    fit_temperature,
    fit_thresholds,
)

LABELS = 4
TEMPERATURE = 0.07


def drawn(count: int, seed: int = 0) -> tuple[FloatArray, Labels]:
    """Return cosines `[N, K]`, and labels drawn by the softmax of them at a known temperature."""
    random = np.random.default_rng(seed)
    cosines = random.normal(0.3, 0.1, (count, LABELS)).astype(np.float32)
    probs = softmax_at(cosines, TEMPERATURE)
    right = np.array([random.choice(LABELS, p=row) for row in probs])
    return cosines, np.eye(LABELS, dtype=np.bool_)[right]


def test_the_temperature_that_drew_labels_is_found() -> None:
    """The temperature comes near to the one that drew them, and no other gives them more probability."""
    cosines, labels = drawn(2000)
    found = fit_temperature(cosines, labels)
    assert found == pytest.approx(TEMPERATURE, rel=0.1)

    def loss(temperature: float) -> float:
        return float(-np.log(softmax_at(cosines, temperature)[labels]).mean())

    assert all(loss(found) <= loss(found * factor) for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2))


def test_sigmoids_have_no_better_neighbour() -> None:
    """Slope and offset of each label minimize the loss with Platt's targets; one is found for any data."""
    random = np.random.default_rng(1)
    cosines = random.normal(0.2, 0.1, (300, LABELS))
    labels = random.random((300, LABELS)) < 1 / (1 + np.exp(-(cosines - 0.25) * 30))
    labels[:, 1] = cosines[:, 1] > 0.2  # told apart without error
    labels[:, 2] = cosines[:, 2] < 0.15  # far from the anchor
    labels[:, 3] = False
    sigmoids = fit_sigmoids(cosines, labels)
    assert np.isfinite(sigmoids).all()

    def loss(column: int, slope: float, offset: float) -> float:
        positives = labels[:, column].sum()
        targets = np.where(
            labels[:, column], (positives + 1) / (positives + 2), 1 / (300 - positives + 2)
        )
        logits = cosines[:, column] * slope + offset
        return float((np.logaddexp(0, logits) - targets * logits).sum())

    for column in (0, 1):
        slope, offset = sigmoids[column]
        best = loss(column, slope, offset)
        for step in (0.99, 1.01):
            assert best <= loss(column, slope * step, offset) + 1e-9
            assert best <= loss(column, slope, offset * step) + 1e-9
    # A label that goes with distance, and one that no text has, have a probability that no cosine changes.
    assert sigmoids[2:, 0].tolist() == [0, pytest.approx(0, abs=1e-6)]
    rare = 1 / (1 + np.exp(-sigmoids[3, 1]))
    assert rare == pytest.approx(1 / 302, rel=1e-3)


def test_thresholds_give_the_best_f1() -> None:
    """No other threshold gives a label more correctly; a label of no text is never given."""
    random = np.random.default_rng(2)
    independent = np.round(random.random((60, 3)), 2)
    labels = random.random((60, 3)) < independent**2
    labels[:, 2] = False
    thresholds = fit_thresholds(independent, labels)

    def f1(column: int, threshold: float) -> float:
        given = independent[:, column] >= threshold
        hits = (given & labels[:, column]).sum()
        return float(2 * hits / (given.sum() + labels[:, column].sum()))

    for column in (0, 1):
        best = max(f1(column, each) for each in independent[:, column])
        assert f1(column, thresholds[column]) == pytest.approx(best)
    assert thresholds[2] == 1


def test_figures_are_of_texts_that_were_held_out() -> None:
    """The better half of the promise: accuracy, coverage and honesty are measured where nothing was fitted."""
    cosines, labels = drawn(2000)
    fitted = fit_labels(cosines, labels)
    learned, figures = fitted.calibration, fitted.figures
    assert (learned.count, figures["held_out_texts"], figures["labelled_texts"]) == (1000,) * 3
    likeliest = softmax_at(cosines, TEMPERATURE).max(axis=1).mean()
    assert figures["accuracy"] == pytest.approx(likeliest, abs=0.05)
    assert figures["calibration_error"] < 0.06
    assert figures["coverage_at_90"] == pytest.approx(0.9, abs=0.015)
    assert 1 < figures["set_size_at_90"] < LABELS
    again = fit_labels(cosines, labels)
    assert again.figures == figures
    np.testing.assert_array_equal(again.calibration.scores, learned.scores)


def test_texts_of_several_labels_teach_no_softmax() -> None:
    """Where a text has two labels, only their own probabilities are learned."""
    cosines, labels = drawn(200)
    labels[3] |= np.roll(labels[3], 1)
    fitted = fit_labels(cosines, labels)
    assert fitted.calibration.temperature is None
    assert (len(fitted.calibration.scores), fitted.calibration.count) == (0, 0)
    assert "accuracy" not in fitted.figures
    assert 0 < fitted.figures["f1_of_several"] <= 1


def test_too_few_texts_are_refused() -> None:
    """The number that is needed is named."""
    cosines, labels = drawn(19)
    with pytest.raises(FormatError, match=r"19 texts .* 20 are needed"):
        fit_labels(cosines, labels)


def test_probabilities_saturate_without_harm() -> None:
    """Labels that are always right give the lowest temperature, and no infinity."""
    random = np.random.default_rng(3)
    right = random.integers(0, LABELS, 50)
    labels: Labels = np.eye(LABELS, dtype=np.bool_)[right]
    fitted = fit_labels(np.where(labels, 0.9, 0.0).astype(np.float32), labels)
    assert all(np.isfinite(value) for value in fitted.figures.values())
    assert fitted.figures["accuracy"] == 1
