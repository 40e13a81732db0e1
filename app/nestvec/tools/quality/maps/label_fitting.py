"""Fits what makes probabilities of cosines with labels, by texts of known labels, and measures it. Pure numpy.

Half of the texts, chosen by a fixed seed, fit temperature and sigmoids. The other half gives the scores of conformal
sets and the figures: of texts that had a part in neither, so that the promised error holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import Float64Array, FloatArray
from nestvec.engine.vectors.label_calibration import LabelCalibration, kept_scores, softmax_at
from nestvec.engine.vectors.postprocess import probabilities
from nestvec.errors import FormatError

MIN_TEXTS: Final = 20
# Between these the temperature is searched, by thirds of its logarithm.
TEMPERATURES: Final = (0.002, 2.0)
SEARCH_STEPS: Final = 60
NEWTON_STEPS: Final = 50
# Keeps the curvature of a label's sigmoid away from zero; cosines are of the order of 0.1.
RIDGE: Final = 1e-6
CALIBRATION_BINS: Final = 10
# At this error the size of sets is measured, over so many splits of the scores.
ALPHA: Final = 0.1
SPLITS: Final = 200
SEED: Final = 7

Labels = NDArray[np.bool_]  # `[N, K]`


@dataclass(frozen=True, slots=True)
class FittedLabels:
    """What texts of known labels taught, and how good it is on those that were held out."""

    calibration: LabelCalibration
    figures: Mapping[str, float]


def fit_labels(cosines: FloatArray, labels: Labels) -> FittedLabels:
    """Fit a temperature, and a sigmoid for each label, by texts of known labels.

    Args:
        cosines: Of each text with each label's anchor, `[N, K]`, float32.
        labels: Which labels each text has, at least one, `[N, K]`, bool.

    Raises:
        FormatError: There are too few texts.
    """
    count = len(cosines)
    if count < MIN_TEXTS:
        raise FormatError(
            f"{count} texts of known labels are too few to calibrate: {MIN_TEXTS} are needed, and "
            "some hundreds are good"
        )
    order = np.random.default_rng(SEED).permutation(count)
    fitted, held = np.sort(order[: count // 2]), np.sort(order[count // 2 :])
    sigmoids = fit_sigmoids(cosines[fitted].astype(np.float64), labels[fitted])
    independent = probabilities(
        cosines[fitted].astype(np.float64) * sigmoids[:, 0] + sigmoids[:, 1], "sigmoid"
    )
    thresholds = fit_thresholds(independent, labels[fitted])
    is_single = bool((labels.sum(axis=1) == 1).all())
    temperature, scores = None, np.zeros(0)
    figures: dict[str, float] = {"labelled_texts": len(fitted), "held_out_texts": len(held)}
    if is_single:
        temperature = fit_temperature(cosines[fitted], labels[fitted])
        probs = softmax_at(cosines[held], temperature)
        scores = np.asarray(1 - probs[labels[held]])
        figures |= {"temperature": temperature, **_softmax_figures(probs, labels[held])}
    calibration = LabelCalibration(
        temperature, kept_scores(scores), len(scores), sigmoids, thresholds
    )
    given = calibration.chosen(calibration.independent(cosines[held]))
    figures["f1_of_several"] = _f1(given, labels[held])
    return FittedLabels(calibration, figures)


def fit_temperature(cosines: FloatArray, labels: Labels) -> float:
    """Return the temperature at which a softmax of cosines `[N, K]` gives the right labels the most probability.

    The loss has one minimum: it is convex in the reciprocal of the temperature.
    """

    def loss(log_temperature: float) -> float:
        right = softmax_at(cosines, float(np.exp(log_temperature)))[labels]
        return float(-np.log(np.maximum(right, 1e-300)).mean())

    low, high = np.log(TEMPERATURES[0]), np.log(TEMPERATURES[1])
    for _ in range(SEARCH_STEPS):
        first, second = low + (high - low) / 3, high - (high - low) / 3
        if loss(first) <= loss(second):
            high = second
        else:
            low = first
    return float(np.exp((low + high) / 2))


def fit_sigmoids(cosines: Float64Array, labels: Labels) -> Float64Array:
    """Return slope and offset of each label's sigmoid, `[K, 2]`, by Newton's method and Platt's targets.

    His targets stay off 0 and 1 by one text, so that a label that its cosines tell apart without error, or that no
    text has, has finite values. A slope below zero would say that a text far from the anchor has the label: it is 0.
    """
    positives = labels.sum(axis=0)
    high = (positives + 1) / (positives + 2)
    low = 1 / (len(labels) - positives + 2)
    targets = np.where(labels, high, low)
    mean = targets.mean(axis=0)
    offset_alone = np.log(mean / (1 - mean))
    centre, spread = cosines.mean(axis=0), np.maximum(cosines.std(axis=0), 1e-6)
    x = (cosines - centre) / spread
    slope, offset = np.zeros(len(mean)), offset_alone.copy()
    for _ in range(NEWTON_STEPS):
        p = probabilities(x * slope + offset, "sigmoid")
        error, weight = p - targets, p * (1 - p)
        g_slope, g_offset = (error * x).sum(axis=0), error.sum(axis=0)
        h_slope = (weight * x * x).sum(axis=0) + RIDGE
        h_both = (weight * x).sum(axis=0)
        h_offset = weight.sum(axis=0) + RIDGE
        determinant = h_slope * h_offset - h_both**2
        step_slope = (h_offset * g_slope - h_both * g_offset) / determinant
        step_offset = (h_slope * g_offset - h_both * g_slope) / determinant
        # A long first step of a steep label would jump to where all weights are zero.
        length = np.maximum(1.0, np.maximum(np.abs(step_slope), np.abs(step_offset)))
        slope, offset = slope - step_slope / length, offset - step_offset / length
    falls = slope <= 0
    slope = np.where(falls, 0.0, slope)
    offset = np.where(falls, offset_alone, offset)
    return np.stack([slope / spread, offset - slope * centre / spread], axis=1)


def fit_thresholds(independent: Float64Array, labels: Labels) -> Float64Array:
    """Return the probability from which each label is given so that F1 is highest, `[K]`; 1 for labels of no text."""
    thresholds = np.ones(independent.shape[1])
    for column in np.flatnonzero(labels.any(axis=0)):
        order = np.argsort(-independent[:, column], kind="stable")
        p, hits = independent[order, column], np.cumsum(labels[order, column])
        given = np.arange(1, len(p) + 1)
        f1 = 2 * hits / (given + hits[-1])
        # Between two equal probabilities there is no threshold.
        is_end = np.append(p[1:] < p[:-1], True)
        best = int(np.argmax(np.where(is_end, f1, -1.0)))
        below = p[best + 1] if best + 1 < len(p) else p[best]
        thresholds[column] = (p[best] + below) / 2
    return thresholds


def _softmax_figures(probs: Float64Array, labels: Labels) -> dict[str, float]:
    """Return how often the likeliest label is right, how honest its probability is, and the size of conformal sets."""
    top, right = probs.max(axis=1), labels[np.arange(len(probs)), probs.argmax(axis=1)]
    bins = np.minimum((top * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = [
        abs(float((top[bins == each] - right[bins == each]).sum()))
        for each in range(CALIBRATION_BINS)
    ]
    figures = {
        "accuracy": float(right.mean()),
        "log_loss": float(-np.log(np.maximum(probs[labels], 1e-300)).mean()),
        "calibration_error": sum(gaps) / len(probs),
    }
    covered, sizes = _split_sets(probs, labels)
    name = f"at_{1 - ALPHA:.0%}".rstrip("%")
    return {**figures, f"coverage_{name}": covered, f"set_size_{name}": sizes}


def _split_sets(probs: Float64Array, labels: Labels) -> tuple[float, float]:
    """Return the share of right labels in conformal sets, and the sets' mean size, over splits of the texts."""
    random, scores = np.random.default_rng(SEED), 1 - probs[labels]
    covered, sizes = [], []
    for _ in range(SPLITS):
        order = random.permutation(len(scores))
        first, second = order[: len(order) // 2], order[len(order) // 2 :]
        rank = int(np.ceil((len(first) + 1) * (1 - ALPHA) - 1e-9))
        threshold = np.sort(scores[first])[rank - 1] if rank <= len(first) else 1.0
        covered.append(float((scores[second] <= threshold).mean()))
        sizes.append(float((1 - probs[second] <= threshold).sum(axis=1).mean()))
    return float(np.mean(covered)), float(np.mean(sizes))


def _f1(given: Labels, labels: Labels) -> float:
    """Return F1 over all texts and labels together."""
    hits = int((given & labels).sum())
    return 2 * hits / max(1, int(given.sum() + labels.sum()))
