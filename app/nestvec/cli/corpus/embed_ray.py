"""`nestvec embed --ray`: what of the command's flags goes to a cluster of Ray, and what is said meanwhile."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final, cast

import click
from tqdm import tqdm

from nestvec.cli.corpus.embed_flags import column_names
from nestvec.cli.corpus.ray_flags import FLAG, RayFlags
from nestvec.config.groups.batching import BatchingSettings
from nestvec.config.groups.gpu import GpuSettings
from nestvec.config.groups.models import ServedModelSettings
from nestvec.config.groups.precision import PrecisionSettings
from nestvec.config.groups.vectors import VectorSettings
from nestvec.config.settings import Settings
from nestvec.corpus.reading.readers import import_parquet
from nestvec.corpus.reading.records import ALL_COLUMNS, wanted_columns
from nestvec.corpus.reading.sources import STDIO
from nestvec.corpus.stores.registry import SCHEMES, find_store
from nestvec.errors import FormatError
from nestvec.ray.folders import SourceFiles, arrow_path, find_parquet
from nestvec.ray.options import TableJob, TableOptions, table_job
from nestvec.ray.run import InterruptedRunError, RayRun, RaySummary, import_ray, run_on_ray
from nestvec.ray.tally import Totals

# Settings that decide vectors, or how a model is found and run; the others are a server's, and some are secrets.
OF_ENGINES: Final = tuple(
    name
    for group in (
        ServedModelSettings,
        PrecisionSettings,
        VectorSettings,
        GpuSettings,
        BatchingSettings,
    )
    for name in group.model_fields
)


def embed_by_ray(
    sources: Sequence[str], target: str, settings: Settings, ray: RayFlags, flags: Mapping[str, Any]
) -> None:
    """Embed Parquet files on a cluster, and say what was done.

    Args:
        sources: Paths, folders and globs, local or of an object store.
        target: The folder.
        settings: Settings of the engine, which the actors get as far as they are set.
        ray: The cluster.
        flags: What the flags about texts and vectors hold, and `recipe`.

    Raises:
        click.UsageError: Flags contradict each other.
        NestvecError: As `run_on_ray`.
    """
    import_parquet()
    import_ray()
    run = ray_run(sources, target, settings, ray, flags)
    started_s = time.monotonic()
    with closing(_Bar()) as bar:
        click.echo("connecting, and loading the model on a node …", err=True)
        try:
            summary = run_on_ray(run, ray.address, bar.begin, bar.advance)
        except InterruptedRunError as error:
            bar.close()
            click.echo(
                f"interrupted: {error.kept} of {error.rows} texts are kept; the same command goes on from here"
                if error.kept
                else "interrupted: nothing is kept",
                err=True,
            )
            raise click.Abort from None
    click.echo(_report(target, summary, time.monotonic() - started_s))


def ray_run(
    sources: Sequence[str], target: str, settings: Settings, ray: RayFlags, flags: Mapping[str, Any]
) -> RayRun:
    """Return the run that flags describe.

    Raises:
        click.UsageError: Flags contradict each other.
        FormatError: A source is not there, or lacks a column.
    """
    if STDIO in (*sources, target):
        raise click.UsageError(f"{FLAG} reads and writes files; '-' is none")
    scheme = target.partition("://")[0] if "://" in target else ""
    # Of other schemes Arrow knows whether they are of an object store.
    if scheme in SCHEMES or (not scheme and find_store(target) is not None):
        raise click.UsageError(
            f"{FLAG} writes a folder of Parquet; fill {target} from it by nestvec embed, or by the store's own means"
        )
    if flags["with_text"] and (flags["template"] or settings.text.template):
        raise click.UsageError(
            "--with-text keeps one column; with a template name them by --keep-columns"
        )
    found = find_parquet(sources)
    present = _present(found)
    options = _options(flags, present, template=settings.text.template or "")
    job = table_job(options)
    return RayRun(
        sources=found,
        target=arrow_path(target),
        target_name=target,
        id_column=options["id_column"],
        columns=_read_columns(job, present),
        embed={"settings": sent_settings(settings), **options},
        cpus=settings.worker_threads,
        actors=ray.actors,
        uses_gpus={"auto": None, "cpu": False, "cuda": True}[settings.provider],
        batch_rows=ray.batch_rows,
    )


def sent_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that actors get: what is set here, of models and how they run; no keys, no addresses."""
    names = set(OF_ENGINES) & settings.model_fields_set
    return settings.model_dump(mode="json", include=names, exclude_unset=True)


def _present(sources: SourceFiles) -> list[str]:
    """Return the columns of the first file, by which mistakes are told before a cluster is asked.

    Raises:
        FormatError: It is no Parquet file.
    """
    import pyarrow as pa

    try:
        schema = import_parquet().read_schema(sources.paths[0], filesystem=sources.filesystem)
    except (pa.ArrowInvalid, OSError) as error:
        raise FormatError(f"{sources.paths[0]}: not a Parquet file ({error})") from error
    return list(schema.names)


def _options(flags: Mapping[str, Any], present: Sequence[str], *, template: str) -> TableOptions:
    """Return what `Embed` is asked for.

    Raises:
        FormatError: The first file has no such column.
    """
    id_column = flags["id_column"] or "id"
    named = column_names(flags["keep_columns"])
    if ALL_COLUMNS in named:
        named = tuple(name for name in present if name != flags["text_column"])
    kept = dict.fromkeys([id_column, *named])
    if flags["with_text"]:
        kept[flags["text_column"]] = None
    options = {
        "text_column": flags["text_column"],
        "id_column": id_column,
        "keep_columns": list(kept),
        "template": flags["template"] or template,
        "context_column": flags["context_column"],
        "dimensions": flags["dimensions"],
        "dtype": flags["output_dtype"],
        "truncate": flags["truncate"],
        "prompt_name": flags["prompt_name"],
        "layers": flags["layers"],
        "map": flags["map_name"],
        "output": flags["output"],
        "recipe": flags["recipe"],
    }
    given = {name: value for name, value in options.items() if value not in (None, "")}
    return cast("TableOptions", given)


def _read_columns(job: TableJob, present: Sequence[str]) -> list[str]:
    """Return the columns that are read.

    Raises:
        FormatError: The first file has not all of them, or one would be overwritten.
    """
    columns = job.columns
    ways = {
        columns.id or "id": "--id-column",
        **({} if columns.template else {columns.text: "--text-column"}),
        **({columns.context: "--context-column"} if columns.context else {}),
        **{name: "--keep-columns" for name in job.keep or () if name != columns.id},
    }
    for name, flag in ways.items():
        if name not in present:
            raise FormatError(f"no column '{name}' ({flag}); there are: {', '.join(present)}")
        if name in job.vector_columns and flag == "--keep-columns":
            raise FormatError(f"'{name}' is a column of the output's own; keep others")
    return list(dict.fromkeys([*ways, *wanted_columns(present, columns)]))


class _Bar:
    """Shows how many texts are done, and how many tokens a second."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._started_s = 0.0
        self._rows = self._resumed = 0

    def begin(self, rows: int, resumed: int) -> None:
        """Show the bar, begun by what an earlier run has made."""
        self._bar = tqdm(total=rows, initial=resumed, unit="text", smoothing=0.05)
        self._started_s = time.monotonic()
        self._rows, self._resumed = rows, resumed

    def advance(self, totals: Totals) -> None:
        """Show what was done; what was done twice, as a node was lost, does not run over the end."""
        if self._bar is None:
            return
        rate = totals.tokens / max(1e-9, time.monotonic() - self._started_s)
        self._bar.set_postfix_str(
            f"{rate:,.0f} tok/s on {len(totals.batches)} nodes", refresh=False
        )
        done = min(self._resumed + totals.texts, self._rows)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def _report(target: str, summary: RaySummary, took_s: float) -> str:
    """Say what a run did."""
    if summary.pool is None:
        return f"{target}: {summary.rows} vectors, complete already"
    totals, pool = summary.totals, summary.pool
    made = f"{summary.rows} vectors"
    if summary.resumed:
        made += f" ({summary.resumed} texts by an earlier run)"
    batches = sum(totals.batches.values())
    shares = ", ".join(f"{count / batches:.0%}" for count in sorted(totals.batches.values()))
    of_each = f"{pool.cpus} CPUs" + (f" and {pool.gpus} GPU" if pool.gpus else "")
    return (
        f"{target}: {made} from {totals.tokens} tokens in {took_s:.1f} s, {totals.truncated} texts truncated, by at "
        f"most {pool.actors} actors of {of_each} on {len(totals.batches)} nodes ({shares or 'no'} batches)"
    )
