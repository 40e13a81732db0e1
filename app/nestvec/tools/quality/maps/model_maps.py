"""Maps of a model of this process: which vectors of which texts they are fitted from and to."""

from collections.abc import Sequence
from typing import Final

from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.maps import AffineMap, MapKind
from nestvec.errors import FormatError
from nestvec.tools.quality.maps.fitting import fit_linear, fit_space_transform
from nestvec.tools.quality.maps.migration import measure_migration
from nestvec.tools.quality.tasks import RetrievalTask
from nestvec.tools.quality.vectors import ModelVectors

# Maps are applied to documents first of all.
ROLE: Final = "passage"
# The source of a map from stored vectors, whose model is not here.
STORED: Final = "stored"


def fit_exits(source: ModelVectors, texts: Sequence[str], layers: Sequence[int]) -> list[AffineMap]:
    """Fit a map from each early layer's vectors to the last layer's, all from one pass.

    Raises:
        FormatError: There are too few texts.
    """
    space = source.model.spec.space
    *early, last = source.raw(texts, (*layers, source.exits[-1]), role=ROLE)
    return [
        fit_linear(vectors, last, takes_unit=False).as_map(
            f"exit-{layer}", MapKind.EXIT, space, layers=layer, target=space
        )
        for layer, vectors in zip(layers, early, strict=True)
    ]


def fit_space_map(source: ModelVectors, texts: Sequence[str], kind: MapKind) -> AffineMap:
    """Fit a map that rotates, centres or whitens a model's space.

    Raises:
        FormatError: There are too few texts.
    """
    vectors = source.raw(texts, role=ROLE)[0]
    return fit_space_transform(vectors, kind).as_map(kind.value, kind, source.model.spec.space)


def fit_translation(
    source: ModelVectors, target: ModelVectors, texts: Sequence[str], task: RetrievalTask | None
) -> AffineMap:
    """Fit a map from one model's space to another's, and judge it by a search too, where there is one.

    Raises:
        FormatError: There are too few texts.
    """
    inputs, targets = (model.raw(texts, role=ROLE)[0] for model in (source, target))
    affine_map = _translation(inputs, targets, source.model.spec.space, target.model.spec)
    return affine_map if task is None else measure_migration(affine_map, source, target, task)


def fit_stored(stored: FloatArray, target: ModelVectors, texts: Sequence[str]) -> AffineMap:
    """Fit a map from stored vectors `[N, D]` of N texts to a model's space.

    Raises:
        FormatError: There is not one vector for each text, or there are too few texts.
    """
    if len(stored) != len(texts):
        raise FormatError(f"{len(stored)} stored vectors for {len(texts)} texts")
    targets = target.raw(texts, role=ROLE)[0]
    return _translation(stored, targets, STORED, target.model.spec)


def _translation(
    inputs: FloatArray, targets: FloatArray, source: str, target: ModelSpec
) -> AffineMap:
    """Fit a map to a model's space, named after the model."""
    return fit_linear(inputs, targets, takes_unit=True).as_map(
        f"to-{_file_name(target.name)}",
        MapKind.TRANSLATE,
        source,
        target=target.space,
        target_model=target.name,
    )


def _file_name(model: str) -> str:
    """Return a model's name without its owner, in characters that a file name may have."""
    last = model.rsplit("/", 1)[-1].lower()
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in last)
    return name[:60].lstrip("._-") or "model"
