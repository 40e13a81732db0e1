"""Maps whose values have names: the cosine of a text with the anchor of each label."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.front.labelling import labelling_role
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.maps import AffineMap, MapKind
from nestvec.engine.vectors.postprocess import finish
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.errors import FormatError
from nestvec.tools.quality.labelled_texts import Concept, LabelledText
from nestvec.tools.quality.maps.label_fitting import FittedLabels, fit_labels
from nestvec.tools.quality.vectors import ModelVectors

# Anchors nearer to one another than this are one: the labels' texts say the same to the model.
MAX_ANCHOR_COSINE: Final = 1 - 1e-5


def fit_concepts(
    source: ModelVectors,
    concepts: Sequence[Concept],
    template: str,
    labelled: Sequence[LabelledText] = (),
) -> AffineMap:
    """Make a map that gives the cosine of a vector with each label's anchor: the mean of the label's unit vectors.

    Args:
        source: The model.
        concepts: The labels, two at least, all of texts or all of pictures.
        template: What labels' names are put into.
        labelled: Texts or pictures of known labels, from which probabilities are learned; none for none.

    Raises:
        FormatError: Two labels have one anchor, a text of known labels made an anchor, or there are too few of them.
            Or a picture cannot be read.
    """
    by_label = [concept.read_as(template) for concept in concepts]
    labels = [concept.label for concept in concepts]
    texts = [text for each in by_label for text in each]
    _check_apart(texts, labelled)
    role = labelling_role(source.model.spec)
    unit = finish(source.raw_of(texts, role=role), dimensions=None, normalize=True)
    stops = np.cumsum([0, *map(len, by_label)])
    means = np.stack([unit[start:stop].mean(axis=0) for start, stop in pairwise(stops)])
    anchors = finish(means, dimensions=None, normalize=True)
    figures = _anchor_figures(
        unit, anchors, labels, np.repeat(np.arange(len(labels)), np.diff(stops))
    )
    fitted = _fit_labels(source, anchors, labelled, role) if labelled else None
    return AffineMap(
        name=MapKind.CONCEPTS.value,
        kind=MapKind.CONCEPTS,
        weight=np.ascontiguousarray(anchors.T),
        bias=np.zeros(len(labels), np.float32),
        source=source.model.spec.space,
        takes_unit=True,
        figures={**figures, **(fitted.figures if fitted is not None else {})},
        quantizer=mapped_ranges(source, anchors.T),
        labels=tuple(labels),
        template="" if _are_pictures(texts) else template,
        label_calibration=fitted.calibration if fitted is not None else None,
        has_picture_anchors=_are_pictures(texts),
    )


def mapped_ranges(source: ModelVectors, weight: FloatArray) -> Quantizer:
    """Return 8-bit ranges of what a linear map `[H, K]` gives, from the vectors that the model's own ranges are of."""
    vectors = source.model.quantizer.vectors
    if vectors is None:
        return Quantizer()
    mapped = finish(vectors, dimensions=None, normalize=True) @ weight
    return Quantizer(finish(mapped, dimensions=None, normalize=True), "fitted")


def _are_pictures(inputs: Sequence[str | Path]) -> bool:
    return any(isinstance(each, Path) for each in inputs)


def _check_apart(texts: Sequence[str | Path], labelled: Sequence[LabelledText]) -> None:
    """Refuse to learn from texts that anchors are made of: they are nearer to them than others will be.

    Raises:
        FormatError: One is.
    """
    anchors = {_content(each) for each in texts}
    shared = sum(_content(each.text) in anchors for each in labelled)
    if shared:
        kind = "pictures" if _are_pictures(texts) else "texts"
        raise FormatError(
            f"{shared} of the {kind} to calibrate on are {kind} of anchors too; calibrate on others"
        )


def _content(each: str | Path) -> str | bytes:
    """Return a text, or what stands for a picture's file: copies of it are the same.

    Raises:
        FormatError: It cannot be read.
    """
    if isinstance(each, str):
        return each
    try:
        return sha256(each.read_bytes()).digest()
    except OSError as error:
        raise FormatError(f"{each}: cannot be read ({error.strerror})") from error


def _fit_labels(
    source: ModelVectors, anchors: FloatArray, labelled: Sequence[LabelledText], role: str | None
) -> FittedLabels:
    """Learn probabilities from texts or pictures of known labels."""
    inputs = [each.text for each in labelled]
    raw = source.raw_of(inputs, role=role)
    has_label = np.zeros((len(labelled), len(anchors)), np.bool_)
    for row, each in enumerate(labelled):
        has_label[row, list(each.labels)] = True
    fitted = fit_labels(finish(raw, dimensions=None, normalize=True) @ anchors.T, has_label)
    learned = replace(fitted.calibration, is_of_pictures=_are_pictures(inputs))
    return replace(fitted, calibration=learned)


def _anchor_figures(
    unit: FloatArray, anchors: FloatArray, labels: Sequence[str], own: NDArray[np.int64]
) -> Mapping[str, float]:
    """Return how well anchors are told apart.

    Args:
        unit: The texts' vectors, `[N, H]`.
        anchors: The labels' anchors, `[K, H]`.
        labels: The labels.
        own: The label of each text, `[N]`.

    Raises:
        FormatError: Two labels have one anchor.
    """
    between = anchors @ anchors.T
    np.fill_diagonal(between, -1.0)
    first, second = divmod(int(between.argmax()), len(anchors))
    nearest = float(between[first, second])
    if nearest > MAX_ANCHOR_COSINE:
        raise FormatError(
            f"labels '{labels[first]}' and '{labels[second]}' have one anchor: to the model their texts are the same; "
            "leave one out, or give them example texts"
        )
    is_own_first = (unit @ anchors.T).argmax(axis=1) == own
    return {
        "labels": len(labels),
        "anchor_texts": len(unit),
        "anchor_texts_own_first": float(is_own_first.mean()),
        "nearest_anchors_cosine": nearest,
    }
