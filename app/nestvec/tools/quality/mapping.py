"""Maps of a model of this process: which vectors of which texts they are fitted from and to."""

from collections.abc import Sequence

from nestvec.engine.models.served_model import ModelSpec
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.maps import AffineMap, MapKind
from nestvec.errors import FormatError
from nestvec.tools.quality.fitting import fit_linear, fit_turned
from nestvec.tools.quality.migration import measure_migration
from nestvec.tools.quality.tasks import RetrievalTask
from nestvec.tools.quality.vectors import ModelVectors

ROLE = "passage"  # maps are of documents first of all
STORED = "stored"  # the space of vectors whose model is not here


def fit_exits(source: ModelVectors, texts: Sequence[str], layers: Sequence[int]) -> list[AffineMap]:
    """A map from each early layer's vectors to the last one's, all from one pass."""
    space = source.model.spec.space
    *early, last = source.raw(texts, (*layers, source.exits[-1]), role=ROLE)
    return [
        fit_linear(vectors, last, takes_unit=False).as_map(
            f"exit-{layer}", MapKind.EXIT, space, layers=layer, target=space
        )
        for layer, vectors in zip(layers, early, strict=True)
    ]


def fit_turn(source: ModelVectors, texts: Sequence[str], kind: MapKind) -> AffineMap:
    """A map that turns, centres or whitens a model's space."""
    vectors = source.raw(texts, role=ROLE)[0]
    return fit_turned(vectors, kind).as_map(kind.value, kind, source.model.spec.space)


def fit_translation(
    source: ModelVectors, target: ModelVectors, texts: Sequence[str], task: RetrievalTask | None
) -> AffineMap:
    """A map from one model's space to another's; judged by a search too, where there is one."""
    given, wanted = (one.raw(texts, role=ROLE)[0] for one in (source, target))
    found = _translation(given, wanted, source.model.spec.space, target.model.spec)
    return found if task is None else measure_migration(found, source, target, task)


def fit_stored(given: FloatArray, target: ModelVectors, texts: Sequence[str]) -> AffineMap:
    """A map from stored vectors to a model's space.

    Raises:
        FormatError: There is not a vector for each text.
    """
    if len(given) != len(texts):
        raise FormatError(f"{len(given)} stored vectors for {len(texts)} texts")
    wanted = target.raw(texts, role=ROLE)[0]
    return _translation(given, wanted, STORED, target.model.spec)


def _translation(
    given: FloatArray, wanted: FloatArray, source: str, target: ModelSpec
) -> AffineMap:
    return fit_linear(given, wanted, takes_unit=True).as_map(
        f"to-{_file_name(target.name)}",
        MapKind.TRANSLATE,
        source,
        target=target.space,
        target_model=target.name,
    )


def _file_name(model: str) -> str:
    last = model.rsplit("/", 1)[-1].lower()
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in last)
    return name[:60].lstrip("._-") or "model"
