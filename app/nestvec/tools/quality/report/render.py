"""Writes a report as an HTML page, as Markdown and as JSON."""

import importlib.util
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from nestvec import __version__
from nestvec.corpus.reports.forms.measure import VariantScore
from nestvec.corpus.reports.forms.variants import Variant
from nestvec.corpus.reports.render import STYLE
from nestvec.errors import FormatError
from nestvec.system.extras import how_to_install
from nestvec.tools.quality.report import plots
from nestvec.tools.quality.report.report import QualityReport

PAGE: Final = "report.html.j2"
MARKDOWN: Final = "report.md.j2"
# What measuring and reporting import, late; the extra `quality`.
PACKAGES: Final = ("matplotlib", "jinja2")


def check_packages(packages: Sequence[str] = PACKAGES) -> None:
    """Refuse to begin what cannot be measured or reported.

    Raises:
        FormatError: A package is not installed; the error says how to get it.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise FormatError(f"quality needs {package}: {how_to_install('quality')}")


def write_report(report: QualityReport, folder: Path) -> list[Path]:
    """Write report.html, report.json and report.md, and return their paths.

    Raises:
        FormatError: jinja2 or matplotlib is not installed.
        OSError: The disk is full or read-only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "report.html": page(report),
        "report.json": json.dumps(report.as_json(), indent=1),
        "report.md": markdown(report),
    }
    paths = []
    for name, content in contents.items():
        path = folder / name
        path.write_text(content, "utf-8")
        paths.append(path)
    return paths


def page(report: QualityReport) -> str:
    """Return the report as one HTML file: plots inside, no script, nothing loaded from elsewhere.

    Raises:
        FormatError: jinja2 or matplotlib is not installed.
    """
    return _render(PAGE, report, has_plots=True)


def markdown(report: QualityReport) -> str:
    """Return the report as Markdown tables, for a repository or a ticket.

    Raises:
        FormatError: jinja2 is not installed.
    """
    return _render(MARKDOWN, report, has_plots=False)


def _render(template: str, report: QualityReport, *, has_plots: bool) -> str:
    """Fill a template.

    Raises:
        FormatError: jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    except ImportError as error:
        raise FormatError(f"the report needs jinja2: {how_to_install('quality')}") from error
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rendered: str = environment.get_template(template).render(
        report=report,
        tasks=[_task(report, task, has_plots=has_plots) for task in report.main],
        version=__version__,
        style=STYLE,
        words=plots.METRIC_WORDS,
        when=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(report.made_s)),
    )
    return rendered


def _task(report: QualityReport, task: str, *, has_plots: bool) -> dict[str, Any]:
    """Return what the templates show of a task."""
    metric = report.main[task]
    figures = [
        figure
        for figure in report.measurements.figures
        if (figure.task, figure.metric) == (task, metric)
    ]
    funnels = [funnel for funnel in report.measurements.funnels if funnel.task == task]
    drawings = []
    if has_plots:
        drawings.append(plots.quality_by_bytes(report, task))
        if len(report.throughput.by_layers) > 1:
            drawings.append(plots.quality_by_compute(report, task))
        if funnels:
            drawings.append(plots.funnels(report, task))
    return {
        "name": task,
        "metric": plots.METRIC_WORDS[metric],
        "plots": drawings,
        "front": [_row(figure, report) for figure in plots.pareto(figures)],
        "rows": _rows(report, task),
        "main": metric,
        "funnels": funnels,
        "geometry": report.measurements.geometries.get(task),
    }


def _rows(report: QualityReport, task: str) -> list[dict[str, Any]]:
    """Return a row for each variant, with all metrics side by side."""
    rows: dict[Variant, dict[str, Any]] = {}
    for figure in report.measurements.figures:
        if figure.task == task:
            row = rows.setdefault(figure.variant, {**_row(figure, report), "scores": {}})
            row["scores"][figure.metric] = _row(figure, report)
    return list(rows.values())


def _row(figure: VariantScore, report: QualityReport) -> dict[str, Any]:
    """Return a score as the templates show it."""
    variant, source = figure.variant, figure.variant.source
    source_label = (
        f"{source.layers}"
        if source.status == "full"
        else f"{source.layers} ({source.map_name or source.status})"
    )
    return {
        "dimensions": variant.dimensions,
        "dtype": variant.dtype,
        "source": source_label if report.model["layers"] else "all",
        "bytes": variant.bytes,
        "score": f"{figure.estimate.score:.4f}",
        "interval": f"{figure.estimate.low:.4f} to {figure.estimate.high:.4f}",
        "loss": f"{figure.loss.score:.1%}",
        "n": figure.estimate.n,
    }
