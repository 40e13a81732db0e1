"""The report's plots, as SVG that stands in an HTML page."""

import io
from collections.abc import Sequence
from typing import Any, Final

from nestvec.corpus.reports.forms.funnels import Funnel
from nestvec.corpus.reports.forms.measure import VariantScore
from nestvec.errors import FormatError
from nestvec.system.extras import how_to_install
from nestvec.tools.quality.report.report import QualityReport

COLOURS: Final = {"float": "#1f6feb", "int8": "#2da44e", "binary": "#bc4c00"}
SIZE_INCHES: Final = (7.2, 4.2)
METRIC_WORDS: Final = {
    "spearman": "Spearman",
    "ndcg_at_10": "nDCG@10",
    "recall_at_10": "recall@10",
    "recall_at_100": "recall@100",
    "agreement_at_10": "agreement@10 with full vectors",
}


def quality_by_bytes(report: QualityReport, task: str) -> str:
    """Return a plot of quality against bytes per vector.

    The full model has a line for each dtype, all other sources are points, and the Pareto front is dotted.
    """
    metric = report.main[task]
    figures = _figures(report, task, metric)
    drawing, axes = draw_axes(
        f"{task}: quality against bytes", "bytes a vector", METRIC_WORDS[metric]
    )
    axes.set_xscale("log", base=2)
    for dtype, colour in COLOURS.items():
        of_dtype = [figure for figure in figures if figure.variant.dtype == dtype]
        others = [figure for figure in of_dtype if figure.variant.source.status != "full"]
        axes.scatter(*_points(others), s=14, color=colour, alpha=0.35, linewidths=0)
        full = sorted(
            (figure for figure in of_dtype if figure.variant.source.status == "full"),
            key=lambda figure: figure.variant.bytes,
        )
        if full:
            x, y = _points(full)
            low = [figure.estimate.score - figure.estimate.low for figure in full]
            high = [figure.estimate.high - figure.estimate.score for figure in full]
            axes.errorbar(
                x,
                y,
                yerr=[low, high],
                color=colour,
                marker="o",
                ms=4,
                lw=1.4,
                elinewidth=0.7,
                label=dtype,
            )
    front = pareto(figures)
    axes.plot(*_points(front), color="#57606a", ls=":", lw=1.2, label="best for its size", zorder=0)
    # A fixed place: the search for the best one takes seconds on a busy machine.
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return _svg(drawing)


def quality_by_compute(report: QualityReport, task: str) -> str:
    """Return a plot of the quality of full-size float vectors against the time of a pass."""
    metric = report.main[task]
    figures = [
        figure for figure in _figures(report, task, metric) if figure.variant.dtype == "float"
    ]
    widest = max(figure.variant.dimensions for figure in figures)
    drawing, axes = draw_axes(
        f"{task}: quality against compute",
        "time of a pass, relative to all layers",
        METRIC_WORDS[metric],
    )
    for figure in figures:
        source = figure.variant.source
        if figure.variant.dimensions != widest or not source.is_plain:
            continue
        x = 1 / report.throughput.relative(source.layers)
        error = [
            [figure.estimate.score - figure.estimate.low],
            [figure.estimate.high - figure.estimate.score],
        ]
        axes.errorbar(
            [x],
            [figure.estimate.score],
            yerr=error,
            color="#1f6feb",
            marker="o",
            ms=5,
            elinewidth=0.8,
        )
        label = f"{source.layers} layers" + (
            f", {source.status}" if source.status != "full" else ""
        )
        axes.annotate(
            label,
            (x, figure.estimate.score),
            xytext=(6, -10),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set_xlim(0, 1.25)
    return _svg(drawing)


def funnels(report: QualityReport, task: str) -> str:
    """Return a plot of the recall of two-stage searches against oversampling."""
    of_task = [funnel for funnel in report.measurements.funnels if funnel.task == task]
    drawing, axes = draw_axes(
        f"{task}: two-stage search", "candidates for each result", "recall@10 against full float"
    )
    for first in dict.fromkeys(funnel.first for funnel in of_task):
        for second, style in (("float", "-"), ("int8", "--")):
            line: Sequence[Funnel] = [
                funnel for funnel in of_task if (funnel.first, funnel.second) == (first, second)
            ]
            axes.plot(
                [funnel.oversampling for funnel in line],
                [funnel.recall.score for funnel in line],
                style,
                marker="o",
                ms=3,
                lw=1.2,
                label=f"{first}, then {second}",
            )
    axes.axhline(0.98, color="#57606a", lw=0.7, ls=":")
    axes.legend(frameon=False, fontsize=7, loc="lower right")
    return _svg(drawing)


def pareto(figures: Sequence[VariantScore]) -> list[VariantScore]:
    """Return the scores than which no other is both smaller and better, by rising size."""
    front: list[VariantScore] = []
    for figure in sorted(figures, key=lambda score: (score.variant.bytes, -score.estimate.score)):
        if not front or figure.estimate.score > front[-1].estimate.score:
            front.append(figure)
    return front


def _figures(report: QualityReport, task: str, metric: str) -> list[VariantScore]:
    """Return the scores of a task by one metric."""
    return [
        figure
        for figure in report.measurements.figures
        if (figure.task, figure.metric) == (task, metric)
    ]


def _points(figures: Sequence[VariantScore]) -> tuple[list[int], list[float]]:
    """Return bytes and scores, for the two axes."""
    return [figure.variant.bytes for figure in figures], [
        figure.estimate.score for figure in figures
    ]


def draw_axes(title: str, x: str, y: str) -> tuple[Any, Any]:
    """Return an empty drawing and its axes.

    Raises:
        FormatError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise FormatError(f"the report needs matplotlib: {how_to_install('quality')}") from error
    drawing = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = drawing.add_subplot()
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.grid(visible=True, lw=0.4, color="#d0d7de")
    axes.spines[["top", "right"]].set_visible(False)
    return drawing, axes


def _svg(drawing: Any) -> str:  # noqa: ANN401 - matplotlib's figure
    """Return a drawing without the XML head, which a page has no place for, and without the time of making."""
    out = io.StringIO()
    drawing.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
