"""Whether vectors tie words to groups of people: association tests with permutation p, and a group's direction.

Source: Caliskan, Bryson and Narayanan, "Semantics derived automatically from language corpora contain human-like
biases" (arXiv:1608.07187); Bolukbasi et al. (arXiv:1607.06520) for the direction.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from nestvec.corpus.reports.frame import Figure, Figures, Need, Report, ReportTable, Task
from nestvec.corpus.reports.probes import read_probes
from nestvec.corpus.reports.statistics.bootstrap import LEVEL
from nestvec.engine.types import Float64Array, FloatArray
from nestvec.errors import InputError

PERMUTATIONS: Final = 4999
DRAWS: Final = 1000
ALARM_P: Final = 0.01
SETS: Final = ("x", "y", "a", "b")
OWN: Final = "your words"
EXPECTED: Final = "(should be high)"
DIRECTION: Final = "share of one direction in differences of man and woman"


def measure(task: Task) -> Figures:
    """Test the probes' word sets, or the caller's own, labelled x, y (targets), a and b (attributes).

    Raises:
        InputError: The labels are others.
    """
    if task.data.texts:
        return Figures([_own_test(task)])
    probes: Mapping[str, Any] = read_probes("bias")
    figures = [_test(task, test, test["name"]) for test in probes["tests"]]
    pairs: list[list[str]] = probes["pairs"]
    vectors = task.subject.embed([word for pair in pairs for word in pair]).astype(np.float64)
    differences = vectors[::2] - vectors[1::2]
    _, values, directions = np.linalg.svd(differences, full_matrices=False)
    direction = directions[0] * np.sign((differences @ directions[0]).sum())
    share = float(values[0] ** 2 / (values**2).sum())
    figures.append(Figure(DIRECTION, share, len(pairs), unit="part of the sum"))
    occupations: list[str] = probes["occupations"]
    along = task.subject.embed(occupations).astype(np.float64) @ direction
    rows: list[list[str | int | float]] = [
        [occupations[row], float(along[row])] for row in np.argsort(along).tolist()
    ]
    table = ReportTable("occupations from woman (−) to man (+)", ("word", "along it"), rows)
    notes = [
        "Words alone, without a sentence around them; effect sizes of 0.2, 0.5, 0.8 are small, "
        "medium, large."
    ]
    return Figures(figures, [table], notes)


def advise(figures: Figures) -> list[str]:
    """Name the associations that are no chance."""
    found = [
        figure
        for figure in figures.figures
        if figure.p is not None and figure.p <= ALARM_P and EXPECTED not in figure.name
    ]
    return [
        f"{figure.name}: effect size {figure.value:.2f} (p {figure.p:.3g}): rankings of people by such vectors "
        "carry it; remove the direction by a map, and measure again"
        for figure in found
    ]


def effect_size(
    targets: FloatArray, split: int, attributes: FloatArray, attribute_split: int, seed: int
) -> tuple[float, float, float, float]:
    """Return the effect size of an association test, its 95% interval, and its one-sided permutation p.

    Args:
        targets: Unit vectors of both target sets, `[X + Y, D]`.
        split: X, the size of the first.
        attributes: Unit vectors of both attribute sets, `[A + B, D]`.
        attribute_split: A, the size of the first.
        seed: Of permutations and resamples.
    """
    cosines = targets.astype(np.float64) @ attributes.astype(np.float64).T
    association = cosines[:, :attribute_split].mean(axis=1) - cosines[:, attribute_split:].mean(
        axis=1
    )
    random = np.random.default_rng(seed)
    observed = float(_gaps(association[None, :], split)[0])
    spread = max(float(association.std(ddof=1)), 1e-12)
    shuffled = random.permuted(np.tile(association, (PERMUTATIONS, 1)), axis=1)
    extreme = int((_gaps(shuffled, split) >= observed - 1e-12).sum())
    first, second = association[:split], association[split:]
    drawn = np.concatenate(
        [random.choice(part, (DRAWS, len(part))) for part in (first, second)], axis=1
    )
    draws = _gaps(drawn, split) / np.maximum(drawn.std(axis=1, ddof=1), 1e-12)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    size = observed / spread
    return size, min(low, size), max(high, size), (1 + extreme) / (1 + PERMUTATIONS)


def _gaps(associations: Float64Array, split: int) -> Float64Array:
    """Return how far the mean of the first `split` columns is above that of the others, in each row."""
    gaps: Float64Array = associations[:, :split].mean(axis=1) - associations[:, split:].mean(axis=1)
    return gaps


def _test(task: Task, sets: Mapping[str, Sequence[str]], name: str) -> Figure:
    targets, attributes = [*sets["x"], *sets["y"]], [*sets["a"], *sets["b"]]
    vectors = task.subject.embed([*targets, *attributes])
    size, low, high, p = effect_size(
        vectors[: len(targets)], len(sets["x"]), vectors[len(targets) :], len(sets["a"]), task.seed
    )
    return Figure(f"effect size, {name}", size, len(targets), low, high, p)


def _own_test(task: Task) -> Figure:
    sets: dict[str, list[str]] = {name: [] for name in SETS}
    for index, (label, text) in enumerate(zip(task.data.labels, task.data.texts, strict=True)):
        if label not in sets:
            raise InputError(
                "labels of this report are 'x' and 'y' for words, 'a' and 'b' for what they may be tied to",
                param="labels",
                input_index=index,
            )
        sets[label].append(text)
    if any(len(words) < 2 for words in sets.values()):  # noqa: PLR2004 - one word has no spread
        raise InputError("each of the labels x, y, a and b needs two texts or more", param="labels")
    return _test(task, sets, OWN)


REPORT: Final = Report(
    name="bias",
    title="Whether vectors tie words to groups of people.",
    measure=measure,
    advise=advise,
    takes=(Need.TEXTS, Need.LABELS),
    source="word embedding association test (arXiv:1608.07187), direction of a group (arXiv:1607.06520)",
    max_items=2000,
)
