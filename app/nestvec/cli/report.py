"""`nestvec report NAME`: measures whether a model's vectors can be trusted, on texts of your own or on probes."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from nestvec.assembly.package import prepare_model
from nestvec.assembly.service import build_local_service
from nestvec.cli.flags import settings_flags
from nestvec.cli.server_flags import ServerAddress, server_flags
from nestvec.cli.tables import echo_table
from nestvec.config.settings import Settings
from nestvec.corpus.reports import render
from nestvec.corpus.reports.frame import Need, Report, ReportData, Subject, Task
from nestvec.corpus.reports.kept_vectors import KeptVectors
from nestvec.corpus.reports.reading import ReportFiles
from nestvec.corpus.reports.running import ReportResult, check_data, make_report, side_by_side
from nestvec.corpus.reports.server_subjects import ServerSubjects
from nestvec.corpus.reports.subjects import LocalSubjects
from nestvec.corpus.reports.table import REPORTS
from nestvec.engine.observer import NullObserver
from nestvec.engine.types import FloatArray
from nestvec.errors import ArtefactError, ConfigError
from nestvec.model_store.artefacts.kept_reports import write_report
from nestvec.observability.logs import configure_logs, get_logger

log = get_logger(__name__)

DEFAULT_SEED = 7
# Labels are a column of the texts.
FLAG_OF = {Need.LABELS: "--label-column"}


@click.command("report")
@click.argument("name", required=False, type=click.Choice(list(REPORTS)), metavar="NAME")
@click.option("--list", "lists", is_flag=True, help="List the reports, and what each is made of.")
@click.option("--texts", multiple=True, help="File or folder of texts; may be repeated.")
@click.option("--reference", multiple=True, help="The same, of texts to compare these with.")
@click.option("--pairs", multiple=True, help="File of pairs: text, tab, text, or two columns.")
@click.option("--text-column", default="text", show_default=True, help="Of JSONL, CSV, Parquet.")
@click.option("--label-column", help="Column with each text's label, group or language.")
@click.option("--pair-columns", default="query,answer", show_default=True, help="Two columns.")
@click.option("--most", "max_items", default=100_000, show_default=True, help="Read at most.")
@click.option(
    "--seed", default=DEFAULT_SEED, show_default=True, type=click.IntRange(0), help="Of every draw."
)
@click.option("--all", "takes_all", is_flag=True, help="Every model of the settings or the server.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder for NAME.html, NAME.json and NAME.md; an interrupted report resumes from it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_flags(help_of_url="Measure a running server over HTTP instead: what its clients get.")
@settings_flags(
    *("model", "models", "model_revision", "models_dir", "cache_dir", "offline", "log_level"),
    *("precision", "calibration_file", "weight_storage", "provider", "device_id"),
)
def command(  # noqa: PLR0913 - one argument a flag, as click passes them
    settings: Settings,
    *,
    name: str | None,
    lists: bool,
    texts: tuple[str, ...],
    reference: tuple[str, ...],
    pairs: tuple[str, ...],
    text_column: str,
    label_column: str | None,
    pair_columns: str,
    max_items: int,
    seed: int,
    takes_all: bool,
    out: Path,
    as_json: bool,
    server: ServerAddress,
) -> None:
    """Measure whether vectors can be trusted: NAME is one of the reports that --list shows.

    With several --model (or --all) the models stand side by side, with paired differences. Figures are kept beside
    the model and shown by servers.
    """
    configure_logs(level=settings.log_level, style="auto")
    if lists or name is None:
        _echo_reports()
        return
    first, comma, second = pair_columns.partition(",")
    if not comma or not first or not second:
        raise ConfigError(["--pair-columns: two names with a comma between them"])
    files = ReportFiles(
        texts, reference, pairs, text_column, label_column, (first, second), max_items
    )
    report, data = REPORTS[name], files.read()
    check_data(report, data)
    kept = KeptVectors(out / f".{name}-vectors")
    with kept.until_whole(partial(click.echo, err=True)):
        results, rows = _measure(report, data, settings, server, seed, kept, takes_all=takes_all)
        models = [result.model for result in results] if len(results) > 1 else []
        contents = [result.as_json() for result in results]
        whole: dict[str, Any] = (
            {"models": contents, "side_by_side": rows} if models else contents[0]
        )
        paths = _write(name, contents[0], whole, rows, models, out)
    if as_json:
        click.echo(json.dumps(whole, indent=1))
        return
    table = render.text_rows_side_by_side(rows, models) if models else render.text_rows(contents[0])
    echo_table(table)
    for result in results:
        prefix = f"{result.model}: " if models else ""
        for line in result.advice or (render.NOTHING,):
            click.echo(f"- {prefix}{line}")
    click.echo("written: " + ", ".join(map(str, paths)))


def _measure(  # noqa: PLR0913 - what the flags say
    report: Report,
    data: ReportData,
    settings: Settings,
    server: ServerAddress,
    seed: int,
    kept: KeptVectors,
    *,
    takes_all: bool,
) -> tuple[list[ReportResult], list[dict[str, Any]]]:
    """Make the report of each model; of two models at once where it is about two."""
    is_several = takes_all or "models" in settings.origin[0]
    of_models = settings.for_offline_tools().model_copy(
        update={"models": settings.models if is_several else {}}
    )
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(desc=report.name, unit="text", disable=None))
        subjects: LocalSubjects | ServerSubjects
        if server.url:
            subjects = stack.enter_context(ServerSubjects(server.url, server.key, bar.update))
            names = subjects.names() if takes_all else _server_models(server, settings)
        else:
            service = build_local_service(of_models, NullObserver())
            subjects = stack.enter_context(LocalSubjects(service, bar.update))
            names = subjects.names()

        def subject(name: str) -> Subject:
            found = subjects.subject(name)
            return _with_kept(found, kept, bar)

        if report.models > 1:
            if len(names) != report.models:
                problem = f"'{report.name}' is about two models: name both, by --model A --model B"
                raise ConfigError([problem])
            first, second = map(subject, names)
            results = [make_report(report, Task(data, first, second, seed, bar.refresh))]
        else:
            results = [
                make_report(report, Task(data, subject(each), None, seed, bar.refresh))
                for each in names
            ]
    if not server.url and report.models == 1:
        _keep(results, list(of_models.per_model().values()))
    rows = side_by_side(results) if len(results) > 1 else []
    return results, rows


def _with_kept(subject: Subject, kept: KeptVectors, bar: "tqdm[Any]") -> Subject:
    """Return a model whose vectors are kept until the report is whole, and whose texts count as progress."""
    embed = kept.around(subject.embed, f"{subject.name} {subject.space}", bar.update)

    def counted(texts: Sequence[str], role: str | None = None) -> FloatArray:
        # How many a report embeds shows as it asks for them: samples, and changed texts beside the texts.
        bar.total = (bar.total or 0) + len(texts)
        bar.refresh()
        return embed(texts, role)

    return replace(subject, embed=counted)


def _server_models(server: ServerAddress, settings: Settings) -> list[str]:
    """Return the names of the server's models that are asked for: by --model, several perhaps, or --server-model."""
    flags, _ = settings.origin
    named = [settings.model, *settings.models] if "model" in flags else []
    return named or [server.model]


def _keep(results: Sequence[ReportResult], settings: Sequence[Settings]) -> None:
    """Keep each model's report beside it, where servers find it at their next start."""
    for result, of_model in zip(results, settings, strict=True):
        try:
            write_report(prepare_model(of_model).artefact, result.as_json())
        except ArtefactError as error:
            # The cache was filled elsewhere and is read-only here.
            log.warning("report_not_kept", reason=error.message)


def _write(
    name: str,
    first: dict[str, Any],
    whole: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    models: Sequence[str],
    folder: Path,
) -> list[Path]:
    """Write the report as a page, as JSON and as Markdown, and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        f"{name}.html": render.page(first, rows, models),
        f"{name}.json": json.dumps(whole, indent=1),
        f"{name}.md": render.markdown(first, rows, models),
    }
    for file_name, content in contents.items():
        (folder / file_name).write_text(content, "utf-8")
    return [folder / file_name for file_name in contents]


def _echo_reports() -> None:
    """Print what reports there are."""
    rows = [[report.name, _made_of(report), report.title] for report in REPORTS.values()]
    echo_table([["report", "made of", "what it tells"], *rows])


def _made_of(report: Report) -> str:
    """Return what a report needs, as its flags; what it may do without in brackets."""
    parts = [f"--{need}" for need in report.needs]
    if report.needs_one_of:
        parts.append(" or ".join(f"--{need}" for need in report.needs_one_of))
    parts += [f"[{FLAG_OF.get(need, f'--{need}')}]" for need in report.takes]
    return " ".join(parts) or "probes of its own"
