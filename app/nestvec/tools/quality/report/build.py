"""Makes the quality report: embeds every text once, with all exits in that pass, and measures every form."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from nestvec.corpus.reports.forms.funnels import measure_funnels
from nestvec.corpus.reports.forms.measure import Grid, Measurements, measure_pairs, measure_search
from nestvec.corpus.reports.forms.searches import EmbeddedSearch
from nestvec.corpus.reports.forms.variants import USUAL_DIMENSIONS, VectorSource, unit_prefix
from nestvec.corpus.reports.frame import EmbedTexts
from nestvec.corpus.reports.kept_vectors import KeptVectors
from nestvec.corpus.reports.statistics.geometry import measure_geometry
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.errors import FormatError
from nestvec.tools.quality.report.recommend import recommend
from nestvec.tools.quality.report.report import QualityReport, Tasks
from nestvec.tools.quality.searches import judged_search
from nestvec.tools.quality.throughput import measure_throughput
from nestvec.tools.quality.vectors import ModelVectors

# Of texts without judgements.
MAX_QUERIES: Final = 300
MIN_TEXTS: Final = 50
TIMED_TEXTS: Final = 256
SEED: Final = 3


@dataclass(frozen=True, slots=True)
class ReportPlan:
    """The forms that are compared.

    Attributes:
        layers: Numbers of layers, in any order; empty for all that are trained or fitted, and the full one.
        dimensions: Numbers of dimensions; empty for the native size and the usual ones below it.
        dtypes: Keys of `variants.DTYPES`.
        maps: Names of the model's maps that are compared too; None for all that transform its space.
    """

    layers: Sequence[int] = ()
    dimensions: Sequence[int] = ()
    dtypes: Sequence[str] = ("float", "int8", "binary")
    maps: Sequence[str] | None = None


def make_report(
    model: ModelVectors, tasks: Tasks, plan: ReportPlan, kept: KeptVectors | None = None
) -> QualityReport:
    """Embed every text once, with all exits in that pass, and measure.

    Args:
        model: The model.
        tasks: What is measured on.
        plan: The forms that are compared.
        kept: Vectors of a run that was interrupted, and of this one if it is; None keeps none.

    Raises:
        FormatError: The plan names a layer, a map or a size that the model lacks, or there are too few texts.
    """
    sources = vector_sources(model, plan)
    grid = Grid(sources, _sizes(plan, model.width), plan.dtypes)
    layers = tuple(sorted({source.layers for source in sources}))
    throughput = measure_throughput(model, layers, _timed_texts(tasks))
    started = time.monotonic()
    embedder = _Embedder(model, layers, kept)
    pairs = [
        (name, task, embedder.embed(task.first), embedder.embed(task.second))
        for name, task in tasks.pairs.items()
    ]
    searches = [
        judged_search(
            name,
            task,
            embedder.embed(task.queries, "query"),
            embedder.embed(task.documents, "passage"),
        )
        for name, task in tasks.searches.items()
    ]
    searches += [_unjudged_search(name, texts, embedder) for name, texts in tasks.texts.items()]
    embedded_s = time.monotonic() - started
    measurements = Measurements()
    for name, task, first, second in pairs:
        measurements.figures += measure_pairs(name, task.gold, first, second, grid)
    for search in searches:
        measurements.figures += measure_search(search, grid)
        measurements.funnels += measure_funnels(search, sources[0])
        documents = unit_prefix(search.documents(sources[0]), model.width)
        measurements.geometries[search.name] = measure_geometry(documents)
    recommendations = recommend(measurements.figures)
    described = _describe(model, layers[-1])
    return QualityReport(
        described, measurements, throughput, recommendations, tasks.size, embedded_s
    )


def vector_sources(model: ModelVectors, plan: ReportPlan) -> list[VectorSource]:
    """Return the layers and maps that vectors are taken from, the full one first.

    Raises:
        FormatError: The model has no such layer or map.
    """
    served, exits = model.model, model.exits
    deepest = exits[-1] if exits else 0
    fitted = {exit_map.layers: exit_map for exit_map in served.maps.values() if exit_map.layers}
    trained = served.spec.trained_layers
    sources = [
        VectorSource(deepest, None, "full", served.quantizer.for_unit_vectors(), model.width)
    ]
    early = plan.layers or sorted({*trained, *fitted}, reverse=True)
    for layers in sorted(set(early) - {deepest}, reverse=True):
        if layers not in exits:
            raise FormatError(f"--layers: {layers} is not one of {len(exits)} layers")
        if layers in trained:
            sources.append(VectorSource(layers, None, "trained", Quantizer(), model.width))
        elif layers in fitted:
            exit_map = fitted[layers]
            sources.append(
                VectorSource(layers, exit_map, "fitted", exit_map.quantizer, exit_map.width)
            )
        else:
            sources.append(VectorSource(layers, None, "untrained", Quantizer(), model.width))
    within_space = [
        affine_map.name
        for affine_map in served.maps.values()
        if not affine_map.layers and not affine_map.target
    ]
    for name in within_space if plan.maps is None else plan.maps:
        if name not in served.maps or served.maps[name].layers:
            raise FormatError(f"--maps: this model has no map '{name}'")
        affine_map = served.maps[name]
        kind = affine_map.kind.value
        sources.append(
            VectorSource(deepest, affine_map, kind, affine_map.quantizer, affine_map.width)
        )
    return sources


def _describe(model: ModelVectors, layers: int) -> dict[str, Any]:
    """Return what the report says of the model."""
    spec = model.model.spec
    return {
        "name": spec.name,
        "space": spec.space,
        "dimensions": spec.hidden_size,
        "trained_dimensions": list(spec.trained_dimensions),
        "layers": layers,
        "precision": spec.precision,
        "source": spec.source,
        "license": spec.license,
        "languages": list(spec.languages),
        "language_count": spec.language_count or None,
        "parameters": spec.parameters or None,
    }


class _Embedder:
    """Embeds texts with all exits at once, from which each source takes the one that it wants."""

    def __init__(
        self, model: ModelVectors, layers: Sequence[int], kept: KeptVectors | None
    ) -> None:
        self._model = model
        self._layers = layers
        spec = model.model.spec
        identity = f"{spec.name} {spec.space} pooled {layers}"
        self._embed: EmbedTexts = self._joined
        if kept is not None:
            self._embed = kept.around(self._joined, identity, model.on_progress)

    def embed(self, texts: Sequence[str], role: str | None = None) -> "_ExitVectors":
        """Return the vectors of texts; a text that occurs several times is run once."""
        unique = list(dict.fromkeys(texts))
        row_of = {text: row for row, text in enumerate(unique)}
        raw = self._embed(unique, role).reshape(len(unique), len(self._layers), -1)
        rows = np.array([row_of[text] for text in texts])
        return _ExitVectors({layer: raw[rows, place] for place, layer in enumerate(self._layers)})

    def _joined(self, texts: Sequence[str], role: str | None = None) -> FloatArray:
        """Return the pooled vectors of all exits side by side, `[N, E H]`."""
        exits = self._layers if self._layers != (0,) else ()
        return self._model.raw(texts, exits, role=role).transpose(1, 0, 2).reshape(len(texts), -1)


@dataclass(frozen=True, slots=True)
class _ExitVectors:
    """Pooled vectors of texts.

    Attributes:
        by_layers: Vectors `[N, H]` by the number of layers.
    """

    by_layers: Mapping[int, FloatArray]

    def __call__(self, source: VectorSource) -> FloatArray:
        """Return the vectors that a source is made of, `[N, H]`."""
        return self.by_layers[source.layers]


def _unjudged_search(name: str, texts: Sequence[str], embedder: _Embedder) -> EmbeddedSearch:
    """Return a search of some of the texts among all.

    Raises:
        FormatError: There are too few texts.
    """
    if len(texts) < MIN_TEXTS:
        raise FormatError(f"{name}: {len(texts)} texts; at least {MIN_TEXTS} say anything")
    random = np.random.default_rng(SEED)
    rows = np.sort(random.permutation(len(texts))[:MAX_QUERIES])
    vectors = embedder.embed(texts, "passage")
    return EmbeddedSearch(name, vectors, vectors, len(rows), query_rows=rows)


def _sizes(plan: ReportPlan, native: int) -> list[int]:
    """Return the numbers of dimensions, falling, the full size first.

    Raises:
        FormatError: The model has no such size.
    """
    sizes = plan.dimensions or [size for size in USUAL_DIMENSIONS if size < native]
    if wrong := [size for size in sizes if not 1 <= size <= native]:
        raise FormatError(f"--dimensions: {wrong[0]} is not 1 to {native}")
    return sorted({native, *sizes}, reverse=True)


def _timed_texts(tasks: Tasks) -> list[str]:
    """Return texts for timing, drawn evenly from those of every task."""
    texts = [
        *(text for task in tasks.searches.values() for text in (*task.queries, *task.documents)),
        *(text for task in tasks.pairs.values() for text in task.first),
        *(text for lines in tasks.texts.values() for text in lines),
    ]
    random = np.random.default_rng(SEED)
    return [texts[index] for index in random.permutation(len(texts))[:TIMED_TEXTS]]
