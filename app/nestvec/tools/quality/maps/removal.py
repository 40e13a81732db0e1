"""Maps that take directions out of a space: those in which the texts of pairs differ.

Source: hard debiasing of word vectors by the leading directions of pair differences (arXiv:1607.06520). The
differences are not centred: their mean is the direction that is looked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from nestvec.corpus.reports.statistics.neighbours import nearest, overlap
from nestvec.engine.types import Float64Array, FloatArray
from nestvec.engine.vectors.maps import AffineMap, MapKind
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import FormatError
from nestvec.tools.quality.maps.concepts import mapped_ranges
from nestvec.tools.quality.searches import mean_ndcg
from nestvec.tools.quality.tasks import RetrievalTask
from nestvec.tools.quality.vectors import ModelVectors

# A direction that holds less of the differences than this, relative to the first, is noise.
MIN_SINGULAR: Final = 1e-4
MIN_DIFFERENCE: Final = 1e-4
NEIGHBOURS: Final = 10
NDCG_DEPTH: Final = 10
ROLE: Final = "passage"


def fit_removal(
    source: ModelVectors,
    pairs: Sequence[tuple[str, str]],
    rank: int,
    texts: Sequence[str] = (),
    task: RetrievalTask | None = None,
) -> AffineMap:
    """Make a map that projects out the `rank` directions in which the texts of pairs differ most.

    Args:
        source: The model.
        pairs: Texts that differ in nothing but what is to be removed.
        rank: How many directions.
        texts: Texts whose neighbours are compared with those before; none for none.
        task: A judged search that is run with and without the map; None for none.

    Raises:
        FormatError: The pairs have fewer directions.
    """
    raw = source.raw([text for pair in pairs for text in pair])[0]
    unit = finish(raw, dimensions=None, normalize=True)
    directions, shares = leading_directions(unit[0::2] - unit[1::2], rank)
    weight = (np.eye(unit.shape[1]) - directions.T @ directions).astype(np.float32)
    removal = AffineMap(
        name=MapKind.REMOVE.value,
        kind=MapKind.REMOVE,
        weight=weight,
        bias=np.zeros(unit.shape[1], np.float32),
        source=source.model.spec.space,
        takes_unit=True,
        quantizer=mapped_ranges(source, weight),
    )
    own = [source.raw(texts, role=ROLE)[0]] if texts else []
    figures: dict[str, float] = {
        "pairs": len(pairs),
        "rank": rank,
        "first_direction_share": float(shares[0]),
        "removed_share": float(shares.sum()),
        **_dots(removal, np.concatenate([raw, *own]), directions),
    }
    if texts:
        figures |= _neighbour_figures(removal, own[0])
    if task is not None:
        figures |= _search_figures(removal, source, task)
    return replace(removal, figures=figures)


def leading_directions(differences: FloatArray, rank: int) -> tuple[Float64Array, Float64Array]:
    """Return the directions in which differences `[N, H]` are longest, `[rank, H]`, and the share of each, `[rank]`.

    Raises:
        FormatError: The differences have fewer directions.
    """
    wide = differences.astype(np.float64)
    if float(np.linalg.norm(wide, axis=1).max()) < MIN_DIFFERENCE:
        raise FormatError(
            "to the model the texts of each pair are the same: there is no direction to remove"
        )
    _, singular, directions = np.linalg.svd(wide, full_matrices=False)
    found = int((singular > MIN_SINGULAR * singular[0]).sum())
    if rank > min(found, wide.shape[1] - 1):
        raise FormatError(
            f"{rank} directions cannot be removed: the pairs have {found} of {wide.shape[1]} dimensions; give more "
            "pairs, or a lower --rank"
        )
    energy = singular**2
    return directions[:rank], energy[:rank] / energy.sum()


def _dots(removal: AffineMap, raw: FloatArray, directions: Float64Array) -> Mapping[str, float]:
    """Return the longest part of unit vectors along the directions, without the map and behind it."""
    before = finish(raw, dimensions=None, normalize=True)
    after = finish(removal.apply(raw), dimensions=None, normalize=True)
    names = ("max_dot_before", "max_dot_after")
    return {
        name: float(np.abs(vectors.astype(np.float64) @ directions.T).max())
        for name, vectors in zip(names, (before, after), strict=True)
    }


def _neighbour_figures(removal: AffineMap, raw: FloatArray) -> Mapping[str, float]:
    """Return how many of the nearest other texts stay what they were."""
    plain = finish(raw, dimensions=None, normalize=True)
    mapped = finish(removal.apply(raw), dimensions=None, normalize=True)
    truth, found = (nearest(each, each, NEIGHBOURS, skips_self=True) for each in (plain, mapped))
    return {
        "texts": len(raw),
        "recall_at_1": float((truth[:, 0] == found[:, 0]).mean()),
        "recall_at_10": float(overlap(found, truth).mean()),
    }


def _search_figures(
    removal: AffineMap, source: ModelVectors, task: RetrievalTask
) -> Mapping[str, float]:
    """Return nDCG@10 of a judged search without the map and behind it, and the loss."""
    documents = source.raw(task.documents, role=ROLE)[0]
    queries = source.raw(task.queries, role="query")[0]
    scores = []
    for each in ((queries, documents), (removal.apply(queries), removal.apply(documents))):
        unit = [finish(vectors, dimensions=None, normalize=True) for vectors in each]
        scores.append(mean_ndcg(nearest(unit[0], unit[1], NDCG_DEPTH), task, k=NDCG_DEPTH))
    plain, mapped = scores
    return {
        "ndcg_at_10_plain": plain,
        "ndcg_at_10": mapped,
        "loss": 1 - mapped / max(plain, 1e-9),
    }
