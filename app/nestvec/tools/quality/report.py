"""The quality report: one pass of the model, scores of every form of its vectors, and what they recommend."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from nestvec import __version__
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.quantization import Quantiser
from nestvec.errors import FormatError
from nestvec.tools.quality.geometry import measure_geometry
from nestvec.tools.quality.measure import (
    Figure,
    Funnel,
    Grid,
    Measured,
    Search,
    judged,
    measure_funnels,
    measure_pairs,
    measure_search,
)
from nestvec.tools.quality.tasks import PairTask, RetrievalTask
from nestvec.tools.quality.throughput import Throughput, measure_throughput
from nestvec.tools.quality.variants import Source, cut
from nestvec.tools.quality.vectors import ModelVectors

BUDGETS: Final = (0.01, 0.02, 0.05)  # of quality lost
MOST_QUERIES: Final = 300  # of unjudged texts
LEAST_TEXTS: Final = 50
SEED: Final = 3
# What a task is judged by, the first that it has.
UNJUDGED: Final = "agreement_at_10"
METRICS: Final = ("ndcg_at_10", "spearman", UNJUDGED)


@dataclass(frozen=True, slots=True)
class Tasks:
    """What to measure on, by the names that the report has for them.

    Attributes:
        texts: Nobody judged these: how many neighbours of full vectors are found.
    """

    pairs: Mapping[str, PairTask] = field(default_factory=dict)
    searches: Mapping[str, RetrievalTask] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Texts to embed."""
        lists = [texts for task in self.pairs.values() for texts in (task.first, task.second)]
        lists += [texts for t in self.searches.values() for texts in (t.documents, t.queries)]
        return sum(len(set(texts)) for texts in (*lists, *self.texts.values()))


@dataclass(frozen=True, slots=True)
class Plan:
    """Which forms are compared.

    Attributes:
        layers: Numbers of them, any order; empty for all that are trained or fitted, and the full one.
        dimensions: Empty for the native size and those usual below it.
        dtypes: Keys of `variants.DTYPES`.
        maps: Names of the model's maps that are compared too; None for all that turn its space.
    """

    layers: Sequence[int] = ()
    dimensions: Sequence[int] = ()
    dtypes: Sequence[str] = ("float", "int8", "binary")
    maps: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The smallest form within a budget, in words.

    Attributes:
        figure: Its score; None where nothing but full vectors is within.
    """

    budget: float
    text: str
    figure: Figure | None


@dataclass(frozen=True, slots=True)
class Report:
    """All of it.

    Attributes:
        model: What was measured: name, space, dimensions, layers, precision.
        embedded_s: Time of the one pass.
        throughput: By number of layers, and of one pass that gives all exits.
    """

    model: Mapping[str, Any]
    measured: Measured
    throughput: Throughput
    recommendations: Sequence[Recommendation]
    texts: int
    embedded_s: float
    made_s: float = field(default_factory=time.time)

    @property
    def main(self) -> dict[str, str]:
        """What each task is judged by."""
        known: dict[str, set[str]] = {}
        for figure in self.measured.figures:
            known.setdefault(figure.task, set()).add(figure.metric)
        return {task: next(m for m in METRICS if m in found) for task, found in known.items()}

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "nestvec": __version__,
            "made_s": int(self.made_s),
            "model": dict(self.model),
            "texts": self.texts,
            "embedded_s": round(self.embedded_s, 2),
            "throughput": self.throughput.as_json(),
            "recommendations": [
                {"budget": one.budget, "text": one.text} for one in self.recommendations
            ],
            "figures": [_figure_json(one) for one in self.measured.figures],
            "funnels": [_funnel_json(one) for one in self.measured.funnels],
            "geometry": {task: asdict(one) for task, one in self.measured.geometries.items()},
        }

    def summary(self) -> dict[str, Any]:
        """What a server tells of its model: the main metric of each task."""
        whole, main = self.as_json(), self.main
        kept = ("dimensions", "dtype", "layers", "map", "bytes", "score", "low", "high")
        tasks = [
            {
                "task": task,
                "metric": metric,
                "n": next(one["n"] for one in whole["figures"] if one["task"] == task),
                "figures": [
                    {name: one[name] for name in kept}
                    for one in whole["figures"]
                    if (one["task"], one["metric"]) == (task, metric)
                ],
            }
            for task, metric in main.items()
        ]
        chosen = ("made_s", "nestvec", "recommendations", "throughput")
        return {"space": self.model["space"], "tasks": tasks} | {n: whole[n] for n in chosen}


def make_report(model: ModelVectors, tasks: Tasks, plan: Plan) -> Report:
    """Embed every text once, all exits in that pass, and measure.

    Raises:
        FormatError: Something planned is not to be had.
    """
    sources = find_sources(model, plan)
    grid = Grid(sources, _sizes(plan, model.width), plan.dtypes)
    layers = tuple(sorted({source.layers for source in sources}))
    throughput = measure_throughput(model, layers, _sample(tasks))
    started = time.monotonic()
    raw = _Raw(model, layers)
    measured = Measured()
    loaded = [
        (name, task, raw.of(task.first), raw.of(task.second)) for name, task in tasks.pairs.items()
    ]
    searches = [
        judged(name, task, raw.of(task.queries, "query"), raw.of(task.documents, "passage"))
        for name, task in tasks.searches.items()
    ]
    searches += [_unjudged(name, texts, raw) for name, texts in tasks.texts.items()]
    embedded_s = time.monotonic() - started
    for name, task, first, second in loaded:
        measured.figures += measure_pairs(name, task, first, second, grid)
    for search in searches:
        measured.figures += measure_search(search, grid)
        measured.funnels += measure_funnels(search, sources[0])
        documents = cut(search.documents(sources[0]), model.width)
        measured.geometries[search.name] = measure_geometry(documents)
    spec = model.model.spec
    described = {
        "name": spec.name,
        "space": spec.space,
        "dimensions": spec.hidden_size,
        "trained_dimensions": list(spec.trained_dimensions),
        "layers": layers[-1],
        "precision": spec.precision,
        "source": spec.source,
        "license": spec.license,
    }
    report = Report(described, measured, throughput, (), tasks.size, embedded_s)
    return Report(
        described, measured, throughput, recommend(report), tasks.size, embedded_s, report.made_s
    )


def find_sources(model: ModelVectors, plan: Plan) -> list[Source]:
    """Where vectors are taken, the full one first.

    Raises:
        FormatError: No such layer or map.
    """
    served, exits = model.model, model.exits
    deepest = exits[-1] if exits else 0
    fitted = {one.layers: one for one in served.maps.values() if one.layers}
    trained = served.spec.trained_layers
    found = [Source(deepest, None, "full", served.quantiser, model.width)]
    wanted = plan.layers or sorted({*trained, *fitted}, reverse=True)
    for layers in sorted(set(wanted) - {deepest}, reverse=True):
        if layers not in exits:
            raise FormatError(f"--layers: {layers} is not one of {len(exits)} layers")
        if layers in trained:
            found.append(Source(layers, None, "trained", Quantiser(), model.width))
        elif layers in fitted:
            own = fitted[layers]
            found.append(Source(layers, own, "fitted", own.quantiser, own.width))
        else:
            found.append(Source(layers, None, "untrained", Quantiser(), model.width))
    turned = [one.name for one in served.maps.values() if not one.layers and not one.target]
    for name in turned if plan.maps is None else plan.maps:
        if name not in served.maps or served.maps[name].layers:
            raise FormatError(f"--maps: this model has no map '{name}'")
        own = served.maps[name]
        found.append(Source(deepest, own, own.kind.value, own.quantiser, own.width))
    return found


def recommend(report: Report) -> list[Recommendation]:
    """For each budget the form of fewest bytes whose measured loss is within, on every task that was judged.

    Agreement with full vectors counts where nobody judged anything: it is the harsher measure by far.
    """
    figures = [f for f in report.measured.figures if report.main[f.task] == f.metric]
    figures = [f for f in figures if f.metric != UNJUDGED] or figures
    by_variant: dict[Any, list[Figure]] = {}
    for figure in figures:
        by_variant.setdefault(figure.variant, []).append(figure)
    worst = [max(own, key=lambda one: one.loss.score) for own in by_variant.values()]
    full = next(one for one in worst if one.variant.source.status == "full")
    found = []
    for budget in BUDGETS:
        within = [one for one in worst if one.loss.score <= budget]
        best = min(
            within, key=lambda one: (one.variant.bytes, -one.variant.source.layers, one.loss.score)
        )
        found.append(_worded(budget, best, full))
    return found


def _worded(budget: float, best: Figure, full: Figure) -> Recommendation:
    variant, loss = best.variant, best.loss
    times = full.variant.bytes / variant.bytes
    if variant == full.variant:
        return Recommendation(budget, f"At most {budget:.0%} loss: only full vectors.", None)
    text = (
        f"At most {budget:.0%} loss: {variant.label}: {variant.bytes} bytes a vector, {times:.3g} times smaller. "
        f"Measured loss {loss.score:.1%} (95% interval {loss.low:.1%} to {loss.high:.1%}) of {best.metric} on "
        f"{best.task}, n = {loss.n}."
    )
    if loss.high > budget:
        text += (
            " The interval reaches beyond the budget: measure on more texts before you rely on it."
        )
    return Recommendation(budget, text, best)


class _Raw:
    """Embeds texts, all exits at once; what is measured takes the one that it wants."""

    def __init__(self, model: ModelVectors, layers: Sequence[int]) -> None:
        self._model = model
        self._layers = layers

    def of(self, texts: Sequence[str], role: str | None = None) -> "_Kept":
        """Vectors of texts, each text run once."""
        every = list(dict.fromkeys(texts))
        place = {text: number for number, text in enumerate(every)}
        exits = self._layers if self._layers != (0,) else ()
        raw = self._model.raw(every, exits, role=role)
        rows = np.array([place[text] for text in texts])
        return _Kept({layer: own[rows] for layer, own in zip(self._layers, raw, strict=True)})


@dataclass(frozen=True, slots=True)
class _Kept:
    """Raw vectors of texts by the number of layers."""

    by_layers: Mapping[int, FloatArray]

    def __call__(self, source: Source) -> FloatArray:
        """Those that a source is made of, (N, H)."""
        return self.by_layers[source.layers]


def _unjudged(name: str, texts: Sequence[str], raw: _Raw) -> Search:
    """A search of some of the texts among all."""
    if len(texts) < LEAST_TEXTS:
        raise FormatError(f"{name}: {len(texts)} texts; at least {LEAST_TEXTS} say anything")
    random = np.random.default_rng(SEED)
    places = np.sort(random.permutation(len(texts))[:MOST_QUERIES])
    own = raw.of(texts, "passage")
    return Search(name, own, own, len(places), query_places=places)


def _sizes(plan: Plan, native: int) -> list[int]:
    """Dimensions, falling, the full size first."""
    usual = (1024, 768, 512, 384, 256, 192, 128, 96, 64, 32)
    wanted = plan.dimensions or [n for n in usual if n < native]
    if wrong := [n for n in wanted if not 1 <= n <= native]:
        raise FormatError(f"--dimensions: {wrong[0]} is not 1 to {native}")
    return sorted({native, *wanted}, reverse=True)


def _sample(tasks: Tasks) -> list[str]:
    """Texts for timing: those of every task, evenly."""
    every = [
        *(text for task in tasks.searches.values() for text in (*task.queries, *task.documents)),
        *(text for task in tasks.pairs.values() for text in task.first),
        *(text for texts in tasks.texts.values() for text in texts),
    ]
    random = np.random.default_rng(SEED)
    return [every[n] for n in random.permutation(len(every))[:256]]


def _figure_json(one: Figure) -> dict[str, Any]:
    variant = one.variant
    return {
        "task": one.task,
        "metric": one.metric,
        "dimensions": variant.dimensions,
        "dtype": variant.dtype,
        "layers": variant.source.layers,
        "map": variant.source.map_name,
        "status": variant.source.status,
        "bytes": variant.bytes,
        "n": one.estimate.n,
        "score": round(one.estimate.score, 5),
        "low": round(one.estimate.low, 5),
        "high": round(one.estimate.high, 5),
        "loss": round(one.loss.score, 5),
        "loss_low": round(one.loss.low, 5),
        "loss_high": round(one.loss.high, 5),
    }


def _funnel_json(one: Funnel) -> dict[str, Any]:
    return {**asdict(one), "recall": {k: round(v, 5) for k, v in asdict(one.recall).items()}}
