"""A report as a page, as Markdown and as JSON."""

import json
import time
from pathlib import Path
from typing import Any, Final

from nestvec import __version__
from nestvec.errors import FormatError
from nestvec.tools.quality import plots
from nestvec.tools.quality.measure import Figure
from nestvec.tools.quality.report import Report

PAGE: Final = "report.html.j2"
MARKDOWN: Final = "report.md.j2"


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.html, report.json and report.md.

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


def page(report: Report) -> str:
    """One file: plots inside, no script, nothing loaded from elsewhere.

    Raises:
        FormatError: jinja2 or matplotlib is not installed.
    """
    return _filled(PAGE, report, has_plots=True)


def markdown(report: Report) -> str:
    """Tables for a repository or a ticket.

    Raises:
        FormatError: jinja2 is not installed.
    """
    return _filled(MARKDOWN, report, has_plots=False)


def _filled(template: str, report: Report, *, has_plots: bool) -> str:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    except ImportError as error:
        raise FormatError("the report needs jinja2: pip install 'nestvec[quality]'") from error
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found: str = environment.get_template(template).render(
        report=report,
        tasks=[_task(report, task, has_plots=has_plots) for task in report.main],
        version=__version__,
        words=plots.METRIC_WORDS,
        when=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(report.made_s)),
    )
    return found


def _task(report: Report, task: str, *, has_plots: bool) -> dict[str, Any]:
    """What the templates show of a task."""
    metric = report.main[task]
    own = [f for f in report.measured.figures if f.task == task]
    funnels = [f for f in report.measured.funnels if f.task == task]
    drawn = []
    if has_plots:
        drawn.append(plots.quality_by_bytes(report, task))
        if len(report.throughput.by_layers) > 1:
            drawn.append(plots.quality_by_compute(report, task))
        if funnels:
            drawn.append(plots.funnels(report, task))
    return {
        "name": task,
        "metric": plots.METRIC_WORDS[metric],
        "plots": drawn,
        "front": [_row(f, report) for f in plots.pareto([f for f in own if f.metric == metric])],
        "rows": _rows(report, task),
        "main": metric,
        "funnels": funnels,
        "geometry": report.measured.geometries.get(task),
    }


def _rows(report: Report, task: str) -> list[dict[str, Any]]:
    """A row a variant, all metrics side by side."""
    rows: dict[Any, dict[str, Any]] = {}
    for figure in report.measured.figures:
        if figure.task == task:
            row = rows.setdefault(figure.variant, {**_row(figure, report), "scores": {}})
            row["scores"][figure.metric] = _row(figure, report)
    return list(rows.values())


def _row(figure: Figure, report: Report) -> dict[str, Any]:
    variant, source = figure.variant, figure.variant.source
    named = (
        f"{source.layers}"
        if source.status == "full"
        else f"{source.layers} ({source.map_name or source.status})"
    )
    return {
        "dimensions": variant.dimensions,
        "dtype": variant.dtype,
        "source": named if report.model["layers"] else "all",
        "bytes": variant.bytes,
        "score": f"{figure.estimate.score:.4f}",
        "interval": f"{figure.estimate.low:.4f} to {figure.estimate.high:.4f}",
        "loss": f"{figure.loss.score:.1%}",
        "n": figure.estimate.n,
    }
