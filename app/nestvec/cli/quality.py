"""`nestvec quality`: measures what dimensions, dtypes and early exits cost, on standard sets or your own texts."""

import asyncio
from functools import partial
from pathlib import Path

import click
from tqdm import tqdm

from nestvec.assembly.package import prepare_model
from nestvec.assembly.service import build_local_service
from nestvec.cli.flags import settings_flags
from nestvec.cli.server_flags import ServerAddress, check_one_model, server_flags
from nestvec.config.settings import Settings
from nestvec.corpus.reports.forms.variants import DTYPES
from nestvec.corpus.reports.kept_vectors import KeptVectors
from nestvec.corpus.server_embedder import ServerEmbedder
from nestvec.engine.observer import NullObserver
from nestvec.errors import ArtefactError, ConfigError
from nestvec.model_store.artefacts.kept_reports import write_quality
from nestvec.observability.logs import configure_logs, get_logger
from nestvec.tools.quality.remote import (
    RemoteScore,
    RemoteVectors,
    markdown,
    score_pairs,
    score_retrieval,
)
from nestvec.tools.quality.report.build import ReportPlan, make_report
from nestvec.tools.quality.report.render import PACKAGES, check_packages, write_report
from nestvec.tools.quality.report.report import Tasks
from nestvec.tools.quality.tasks import (
    RetrievalTask,
    read_answer_pairs,
    read_pairs,
    read_retrieval,
    read_texts,
)
from nestvec.tools.quality.vectors import ModelVectors

log = get_logger(__name__)

REMOTE_SIZES = (384, 256, 128, 64, 32)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("quality")
@click.argument("name", required=False)
@click.option("--sts", type=FILE, help="File of score, text, text lines.")
@click.option(
    "--retrieval",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder in BEIR's or MTEB's layout.",
)
@click.option("--split", default="test", show_default=True, help="Whose judgements of --retrieval.")
@click.option("--pairs", type=FILE, help="Your own: query, tab, the text that answers it.")
@click.option("--texts", type=FILE, help="Your own, one a line, judged by nobody.")
@click.option(
    "--dimensions", help="Sizes, comma-separated; default: the native one and usual ones."
)
@click.option(
    "--dtypes", default=",".join(DTYPES), show_default=True, help="What values are stored as."
)
@click.option("--layers", help="Exits, comma-separated; default: those trained or fitted, and all.")
@click.option("--maps", help="Maps, comma-separated; default: those that turn the space.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("quality-report"),
    show_default=True,
    help="Folder for report.html, report.json and report.md.",
)
@server_flags(
    help_of_url="Measure a running server over HTTP instead: the figures that its clients get."
)
@settings_flags(
    *("model", "model_revision", "models_dir", "cache_dir", "offline", "log_level"),
    *("precision", "calibration_file", "weight_storage", "provider", "device_id"),
)
def command(  # noqa: PLR0913 - one argument a flag, as click passes them
    settings: Settings,
    *,
    name: str | None,
    sts: Path | None,
    retrieval: Path | None,
    split: str,
    pairs: Path | None,
    texts: Path | None,
    dimensions: str | None,
    dtypes: str,
    layers: str | None,
    maps: str | None,
    out: Path,
    server: ServerAddress,
) -> None:
    """Measure what smaller vectors and early exits of a model cost, and recommend.

    NAME is a card, a folder or a Hub id; the configured model if left out. Every text is embedded once; all dimensions,
    dtypes and layers are made from that pass. Texts that nobody judged are enough: the report says how many of the
    neighbours of full vectors are found. The main figures are kept beside the artefact and shown in /v1/models.
    """
    configure_logs(level=settings.log_level, style="auto")
    if not any((sts, retrieval, pairs, texts)):
        raise ConfigError(["name --sts, --retrieval, --pairs or --texts: something to measure on"])
    sizes = _numbers("dimensions", dimensions)
    check_packages(() if server.url else PACKAGES)
    searches = {} if retrieval is None else {retrieval.name: read_retrieval(retrieval, split)}
    check_one_model(server, settings)
    if server.url:
        _measure_server(server, name or server.model, sts, searches, sizes)
        return
    dtype_names = tuple(dtypes.split(","))
    if unknown := set(dtype_names) - set(DTYPES):
        raise ConfigError([f"--dtypes: '{unknown.pop()}' is none of {', '.join(DTYPES)}"])
    if name:
        settings = settings.model_copy(update={"model": name})
    tasks = _tasks(sts, searches, pairs, texts)
    plan = ReportPlan(
        _numbers("layers", layers),
        sizes,
        dtype_names,
        None if maps is None else [map_name for map_name in maps.split(",") if map_name],
    )
    service = build_local_service(settings.for_offline_tools(), NullObserver())
    kept = KeptVectors(out / ".quality-vectors")
    with kept.until_whole(partial(click.echo, err=True)):
        with tqdm(unit="text", total=tasks.size) as bar, ModelVectors(service, bar.update) as model:
            report = make_report(model, tasks, plan, kept)
        paths = write_report(report, out)
    for path in paths:
        click.echo(str(path))
    try:
        write_quality(prepare_model(settings).artefact, report.summary())
    except ArtefactError as error:
        # The cache was filled elsewhere and is read-only here.
        log.warning("quality_not_kept", reason=error.message)
    for recommendation in report.recommendations:
        click.echo(recommendation.text)


def _tasks(
    sts: Path | None,
    searches: dict[str, RetrievalTask],
    pairs: Path | None,
    texts: Path | None,
) -> Tasks:
    """Read what the report is measured on, each under the name that the report shows."""
    searches = searches | {
        path.stem: read_answer_pairs(path) for path in (pairs,) if path is not None
    }
    return Tasks(
        pairs={} if sts is None else {_title(sts): read_pairs(sts)},
        searches=searches,
        texts={} if texts is None else {texts.stem: read_texts(texts)},
    )


def _title(path: Path) -> str:
    """A file's name with its folder's, as `test.tsv` alone says little."""
    return f"{path.parent.name}/{path.stem}" if path.parent.name else path.stem


def _numbers(flag: str, text: str | None) -> list[int]:
    """Read the comma-separated numbers of a flag; none where it was not given.

    Raises:
        ConfigError: Something in it is no number.
    """
    try:
        return [] if text is None else [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError([f"--{flag}: '{text}' is no list of numbers"]) from error


def _measure_server(
    address: ServerAddress,
    model: str,
    sts: Path | None,
    searches: dict[str, RetrievalTask],
    sizes: list[int],
) -> None:
    """Print the figures that the clients of a running server get.

    Raises:
        ConfigError: There is nothing to measure on.
    """
    dimensions = sizes or list(REMOTE_SIZES)

    async def measure() -> list[RemoteScore]:
        scores: list[RemoteScore] = []
        async with ServerEmbedder(address.url, key=address.key, model=model) as server:
            with tqdm(unit="text") as bar:
                vectors = RemoteVectors(server, bar.update)
                if sts is not None:
                    pairs = read_pairs(sts)
                    bar.total = 2 * len(pairs.gold) * len(dimensions)
                    scores += await score_pairs(vectors, pairs, dimensions, _title(sts))
                for title, task in searches.items():
                    bar.total = (bar.total or 0) + len(task.documents) + len(task.queries)
                    scores += await score_retrieval(vectors, task, None, title)
        return scores

    scores = asyncio.run(measure())
    if not scores:
        raise ConfigError(["--url measures --sts and --retrieval"])
    click.echo(markdown(scores))
