"""The quality report as a value: what was measured on which tasks, and its JSON."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from nestvec import __version__
from nestvec.corpus.reports.forms.funnels import Funnel
from nestvec.corpus.reports.forms.measure import Measurements, VariantScore
from nestvec.tools.quality.tasks import PairTask, RetrievalTask
from nestvec.tools.quality.throughput import Throughput

# The metric of a task without judgements.
UNJUDGED: Final = "agreement_at_10"
# A task is judged by the first of these that it has.
METRICS: Final = ("ndcg_at_10", "spearman", UNJUDGED)


@dataclass(frozen=True, slots=True)
class Tasks:
    """What to measure on, by the names that the report has for them.

    Attributes:
        pairs: Pairs of texts with gold scores.
        searches: Searches with judgements.
        texts: Texts without judgements: what counts is how many neighbours of full vectors are found.
    """

    pairs: Mapping[str, PairTask] = field(default_factory=dict)
    searches: Mapping[str, RetrievalTask] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of texts to embed."""
        lists = [texts for task in self.pairs.values() for texts in (task.first, task.second)]
        lists += [
            texts for task in self.searches.values() for texts in (task.documents, task.queries)
        ]
        return sum(len(set(texts)) for texts in (*lists, *self.texts.values()))


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The smallest form whose loss is within a budget.

    Attributes:
        budget: Share of quality that may be lost.
        text: The recommendation in words.
        figure: The form's score; None where only full vectors are within the budget.
    """

    budget: float
    text: str
    figure: VariantScore | None


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What was measured of a model, and what that recommends.

    Attributes:
        model: The model that was measured: name, space, dimensions, layers, precision.
        measurements: All scores.
        throughput: Throughput by number of layers, and of one pass that gives all exits.
        recommendations: A form for each budget.
        texts: Number of texts that were embedded.
        embedded_s: Seconds of the one pass.
        made_s: When the report was made, in seconds since the epoch.
    """

    model: Mapping[str, Any]
    measurements: Measurements
    throughput: Throughput
    recommendations: Sequence[Recommendation]
    texts: int
    embedded_s: float
    made_s: float = field(default_factory=time.time)

    @property
    def main(self) -> dict[str, str]:
        """The metric by which each task is judged."""
        return main_metrics(self.measurements.figures)

    def as_json(self) -> dict[str, Any]:
        """Return the content of report.json."""
        return {
            "nestvec": __version__,
            "made_s": int(self.made_s),
            "model": dict(self.model),
            "texts": self.texts,
            "embedded_s": round(self.embedded_s, 2),
            "throughput": self.throughput.as_json(),
            "recommendations": [
                {"budget": recommendation.budget, "text": recommendation.text}
                for recommendation in self.recommendations
            ],
            "figures": [_figure_json(figure) for figure in self.measurements.figures],
            "funnels": [_funnel_json(funnel) for funnel in self.measurements.funnels],
            "geometry": {
                task: asdict(geometry) for task, geometry in self.measurements.geometries.items()
            },
        }

    def summary(self) -> dict[str, Any]:
        """Return what a server shows of its model: the main metric of each task."""
        content = self.as_json()
        figure_keys = ("dimensions", "dtype", "layers", "map", "bytes", "score", "low", "high")
        tasks = [
            {
                "task": task,
                "metric": metric,
                "n": next(figure["n"] for figure in content["figures"] if figure["task"] == task),
                "figures": [
                    {key: figure[key] for key in figure_keys}
                    for figure in content["figures"]
                    if (figure["task"], figure["metric"]) == (task, metric)
                ],
            }
            for task, metric in self.main.items()
        ]
        keys = ("made_s", "nestvec", "recommendations", "throughput")
        return {"space": self.model["space"], "tasks": tasks} | {key: content[key] for key in keys}


def main_metrics(figures: Sequence[VariantScore]) -> dict[str, str]:
    """Return the metric by which each task is judged: the first of `METRICS` that it has."""
    by_task: dict[str, set[str]] = {}
    for figure in figures:
        by_task.setdefault(figure.task, set()).add(figure.metric)
    return {
        task: next(metric for metric in METRICS if metric in metrics)
        for task, metrics in by_task.items()
    }


def _figure_json(figure: VariantScore) -> dict[str, Any]:
    """Return a score as report.json has it."""
    variant = figure.variant
    return {
        "task": figure.task,
        "metric": figure.metric,
        "dimensions": variant.dimensions,
        "dtype": variant.dtype,
        "layers": variant.source.layers,
        "map": variant.source.map_name,
        "status": variant.source.status,
        "bytes": variant.bytes,
        "n": figure.estimate.n,
        "score": round(figure.estimate.score, 5),
        "low": round(figure.estimate.low, 5),
        "high": round(figure.estimate.high, 5),
        "loss": round(figure.loss.score, 5),
        "loss_low": round(figure.loss.low, 5),
        "loss_high": round(figure.loss.high, 5),
    }


def _funnel_json(funnel: Funnel) -> dict[str, Any]:
    """Return a two-stage search as report.json has it."""
    recall = {name: round(value, 5) for name, value in asdict(funnel.recall).items()}
    return {**asdict(funnel), "recall": recall}
