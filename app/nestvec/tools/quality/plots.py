"""The report's plots, as SVG to stand in a page."""

import io
from collections.abc import Sequence
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.tools.quality.measure import Figure, Funnel
from nestvec.tools.quality.report import Report

COLOURS: Final = {"float": "#1f6feb", "int8": "#2da44e", "binary": "#bc4c00"}
SIZE: Final = (7.2, 4.2)
METRIC_WORDS: Final = {
    "spearman": "Spearman",
    "ndcg_at_10": "nDCG@10",
    "recall_at_10": "recall@10",
    "recall_at_100": "recall@100",
    "agreement_at_10": "agreement@10 with full vectors",
}


def quality_by_bytes(report: Report, task: str) -> str:
    """Quality against bytes a vector, a line for each dtype of the full model, points for all else, and the front."""
    metric = report.main[task]
    figures = _of(report, task, metric)
    drawn, axes = _axes(f"{task}: quality against bytes", "bytes a vector", METRIC_WORDS[metric])
    axes.set_xscale("log", base=2)
    for dtype, colour in COLOURS.items():
        own = [f for f in figures if f.variant.dtype == dtype]
        others = [f for f in own if f.variant.source.status != "full"]
        axes.scatter(*_points(others), s=14, color=colour, alpha=0.35, linewidths=0)
        full = sorted(
            (f for f in own if f.variant.source.status == "full"), key=lambda f: f.variant.bytes
        )
        if full:
            x, y = _points(full)
            low = [f.estimate.score - f.estimate.low for f in full]
            high = [f.estimate.high - f.estimate.score for f in full]
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
    axes.legend(frameon=False, fontsize=9)
    return _svg(drawn)


def quality_by_compute(report: Report, task: str) -> str:
    """Quality of full-size float vectors against the time of a pass."""
    metric = report.main[task]
    figures = [f for f in _of(report, task, metric) if f.variant.dtype == "float"]
    widest = max(f.variant.dimensions for f in figures)
    drawn, axes = _axes(
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
    return _svg(drawn)


def funnels(report: Report, task: str) -> str:
    """Recall of two-stage searches against oversampling."""
    own = [f for f in report.measured.funnels if f.task == task]
    drawn, axes = _axes(
        f"{task}: two-stage search", "candidates for each result", "recall@10 against full float"
    )
    for first in dict.fromkeys(f.first for f in own):
        for second, style in (("float", "-"), ("int8", "--")):
            line: Sequence[Funnel] = [f for f in own if (f.first, f.second) == (first, second)]
            axes.plot(
                [f.oversampling for f in line],
                [f.recall.score for f in line],
                style,
                marker="o",
                ms=3,
                lw=1.2,
                label=f"{first}, then {second}",
            )
    axes.axhline(0.98, color="#57606a", lw=0.7, ls=":")
    axes.legend(frameon=False, fontsize=7, loc="lower right")
    return _svg(drawn)


def pareto(figures: Sequence[Figure]) -> list[Figure]:
    """Those that no other is both smaller and better than, by rising size."""
    found: list[Figure] = []
    for figure in sorted(figures, key=lambda f: (f.variant.bytes, -f.estimate.score)):
        if not found or figure.estimate.score > found[-1].estimate.score:
            found.append(figure)
    return found


def _of(report: Report, task: str, metric: str) -> list[Figure]:
    return [f for f in report.measured.figures if (f.task, f.metric) == (task, metric)]


def _points(figures: Sequence[Figure]) -> tuple[list[int], list[float]]:
    return [f.variant.bytes for f in figures], [f.estimate.score for f in figures]


def _axes(title: str, x: str, y: str) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure as Drawing
    except ImportError as error:
        raise FormatError("the report needs matplotlib: pip install 'nestvec[quality]'") from error
    drawn = Drawing(figsize=SIZE, layout="constrained")
    axes = drawn.add_subplot()
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.grid(visible=True, lw=0.4, color="#d0d7de")
    axes.spines[["top", "right"]].set_visible(False)
    return drawn, axes


def _svg(drawn: Any) -> str:  # noqa: ANN401 - matplotlib's figure
    """Without the XML head, which a page has no place for, and without the time of making."""
    out = io.StringIO()
    drawn.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
