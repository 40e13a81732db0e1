"""Writes reports as Markdown and as HTML pages, from their JSON: that of one just made, or one kept or served.

A page holds everything: no script, nothing loaded from elsewhere.
"""

import html
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nestvec.corpus.reports.svg import interval_plot

# One style for every page that the project writes.
STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; margin: 0 auto; max-width: 1080px; padding: 24px; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 40px 0 8px; border-bottom: 1px solid #d0d7de; padding-bottom: 4px; }
h3 { font-size: 16px; margin: 24px 0 8px; }
p.facts { color: #57606a; margin: 0 0 16px; }
.recommendations { background: #f6f8fa; border: 1px solid #d0d7de; border-radius: 6px; padding: 12px 20px; }
.plots { display: flex; flex-wrap: wrap; gap: 12px; }
.plots figure { margin: 0; flex: 1 1 480px; min-width: 0; max-width: 640px; }
.plots svg { width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 10px; text-align: right; border-bottom: 1px solid #eaeef2; white-space: nowrap; }
th { position: sticky; top: 0; background: #fff; }
td.text, th.text { text-align: left; }
td small { color: #57606a; }
details summary { cursor: pointer; margin: 12px 0; }
"""
NOTHING: Final = "Nothing to advise."
HEADS: Final = ("figure", "value", "95% interval", "n", "p")
MORE_DIGITS: Final = 1000

Json = Mapping[str, Any]
Row = Sequence[str]


def markdown(result: Json, rows: Sequence[Json] = (), models: Sequence[str] = ()) -> str:
    """Return a report as Markdown.

    Args:
        result: The report's JSON; of several models that of the first.
        rows: Side by side, where there are several models.
        models: Their names, in the order of the columns.
    """
    parts = [f"# {_title(result, models)}\n", _facts(result) + "\n"]
    parts += [f"- {line}" for line in result["advice"] or [NOTHING]]
    parts.append("")
    if rows:
        parts += _markdown_table(*_side_by_side(rows, models))
    else:
        parts += _markdown_table(HEADS, [_figure_row(figure) for figure in result["figures"]])
    for table in result["tables"]:
        parts += [f"\n## {table['title']}\n"]
        parts += _markdown_table(
            table["heads"], [list(map(cell_text, row)) for row in table["rows"]]
        )
    parts += [f"\n{note}" for note in _notes(result)]
    return "\n".join(parts) + "\n"


def page(result: Json, rows: Sequence[Json] = (), models: Sequence[str] = ()) -> str:
    """Return a report as one HTML page; see `markdown` for the arguments."""
    return page_of(_title(result, models), section(result, rows, models))


def page_of(title: str, *sections: str) -> str:
    """Return a page of sections in HTML, under a title in plain text."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n" + "\n".join(sections) + "\n</body>\n</html>\n"
    )


def section(result: Json, rows: Sequence[Json] = (), models: Sequence[str] = ()) -> str:
    """Return a report as a part of an HTML page: advice, plots, figures, tables; see `markdown` for the arguments."""
    advice = "".join(f"<li>{html.escape(line)}</li>" for line in result["advice"] or [NOTHING])
    parts = [
        f'<p class="facts">{html.escape(_facts(result))}</p>',
        f'<div class="recommendations"><strong>In plain words</strong><ul>{advice}</ul></div>',
        f'<div class="plots">{"".join(_plots(result, rows))}</div>',
    ]
    if rows:
        parts.append(html_table(*_side_by_side(rows, models)))
    else:
        parts.append(html_table(HEADS, [_figure_row(figure) for figure in result["figures"]]))
    for table in result["tables"]:
        parts.append(f"<h3>{html.escape(table['title'])}</h3>")
        parts.append(
            html_table(table["heads"], [list(map(cell_text, row)) for row in table["rows"]])
        )
    parts += [f'<p class="facts">{html.escape(note)}</p>' for note in _notes(result)]
    return "\n".join(parts)


def html_table(heads: Row, rows: Sequence[Row]) -> str:
    """Return a table whose first column is text and whose others are numbers."""

    def line(tag: str, cells: Row) -> str:
        kinds = [' class="text"', *[""] * (len(cells) - 1)]
        return "".join(
            f"<{tag}{kind}>{html.escape(cell)}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )

    body = "\n".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>\n<tr>{line("th", heads)}</tr>\n{body}\n</table></div>'


def text_rows(result: Json) -> list[list[str]]:
    """Return the figures as rows of a table for a terminal, its head first."""
    return [list(HEADS), *([*_figure_row(figure)] for figure in result["figures"])]


def text_rows_side_by_side(rows: Sequence[Json], models: Sequence[str]) -> list[list[str]]:
    """Return the figures of several models as rows of a table for a terminal, its head first."""
    heads, body = _side_by_side(rows, models)
    return [list(heads), *map(list, body)]


def cell_text(cell: str | float | None) -> str:
    """Write a cell as people do."""
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or float(cell).is_integer():
        return f"{int(cell):,}"
    return f"{cell:,.1f}" if abs(cell) >= MORE_DIGITS else f"{cell:.4g}"


def _title(result: Json, models: Sequence[str]) -> str:
    name = " and ".join(models) if models else result["model"]
    if result.get("other_model"):
        name += f" against {result['other_model']}"
    return f"{result['report']}: {name}"


def _facts(result: Json) -> str:
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(result["made_s"]))
    texts = f", texts of {result['texts_of']}" if result.get("texts_of") else ""
    return (
        f"{result['title']} {when}, Nestvec {result['nestvec']}, space {result['space']}, seed {result['seed']}"
        f"{texts}."
    )


def _notes(result: Json) -> list[str]:
    method = [f"Method: {result['method']}"] if result.get("method") else []
    # What is advised anyway need not be said twice.
    return [note for note in result["notes"] if note not in result["advice"]] + method


def _figure_row(figure: Json) -> list[str]:
    unit = f" ({figure['unit']})" if figure["unit"] else ""
    return [
        figure["name"] + unit,
        cell_text(figure["value"]),
        _interval(figure),
        cell_text(figure["n"]),
        cell_text(figure["p"]),
    ]


def _interval(figure: Json) -> str:
    if figure["low"] is None:
        return "-"
    return f"{cell_text(figure['low'])} to {cell_text(figure['high'])}"


def _side_by_side(rows: Sequence[Json], models: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the body of a table with a column for each model, and one for each difference."""
    heads = ["figure", *models, *(f"{model} − {models[0]} (95%, p)" for model in models[1:])]
    body = []
    for row in rows:
        unit = f" ({row['unit']})" if row["unit"] else ""
        cells = [
            "-" if column is None else f"{cell_text(column['value'])} [{_interval(column)}]"
            for column in row["columns"]
        ]
        differences = [
            "-"
            if each is None
            else f"{each['value']:+.4g} [{cell_text(each['low'])} to {cell_text(each['high'])}], "
            f"p {each['p_adjusted']:.3g}"
            for each in row["differences"]
        ]
        body.append([row["name"] + unit, *cells, *differences])
    return heads, body


def _plots(result: Json, rows: Sequence[Json]) -> list[str]:
    """Return a plot for each unit of the figures that have intervals."""
    figures: list[dict[str, Any]]
    if rows:
        figures = [
            {**figure, "column": column}
            for row in rows
            for column, figure in enumerate(row["columns"])
            if figure is not None
        ]
    else:
        figures = [dict(figure) for figure in result["figures"]]
    by_unit: dict[str, list[dict[str, Any]]] = {}
    for figure in figures:
        if figure["low"] is not None:
            by_unit.setdefault(figure["unit"], []).append(figure)
    return [f"<figure>{interval_plot(each, unit)}</figure>" for unit, each in by_unit.items()]


def _markdown_table(heads: Row, rows: Sequence[Row]) -> list[str]:
    def line(cells: Row) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(heads), "|" + "---|" * len(heads), *map(line, rows)]
