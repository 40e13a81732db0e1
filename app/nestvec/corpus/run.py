"""Embeds files of texts into a file or a vector store, and goes on with an interrupted run."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path

from nestvec.corpus.embedders import CorpusEmbedder, ModelDescription, OutputForm
from nestvec.corpus.files.draft import Draft
from nestvec.corpus.files.formats import check_ending
from nestvec.corpus.files.writer import FileLayout
from nestvec.corpus.job import (
    CommitListener,
    CorpusJob,
    CorpusSummary,
    ProgressListener,
    ignore_commits,
)
from nestvec.corpus.pipeline import Pipeline
from nestvec.corpus.reading.readers import PICTURES
from nestvec.corpus.rows import RowMaker, salt_of
from nestvec.corpus.scan import CorpusScan, scan
from nestvec.corpus.sinks import DraftSink, Sink, StdoutSink, StoreSink
from nestvec.corpus.store_writer import IdKind, StoreLayout
from nestvec.corpus.stores.registry import find_store
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.types import Truncation
from nestvec.errors import ArtefactError, FormatError, InputError


def check_job(job: CorpusJob) -> None:
    """Refuse what cannot be, before any work: an unknown ending or address, a package that is missing.

    Raises:
        FormatError: Something cannot be; the error says what.
    """
    if job.columns.context:
        _check_contexts(job)
    if job.columns.group:
        _check_groups(job)
    _check_pictures(job)
    if job.store:
        kind = find_store(job.store)
        if kind is None:
            raise FormatError(f"{job.store}: no such kind of store")
        kind.check(job.store)
    elif job.target is not None:
        check_ending(job.target)
    elif job.appends:
        raise FormatError("standard output cannot be added to; leave --append out")


def _check_pictures(job: CorpusJob) -> None:
    """Refuse pictures where documents are cut, or weights of terms are made of each.

    Raises:
        FormatError: The job asks for such a thing.
    """
    picture = next((each for each in job.sources if each.kind in PICTURES), None)
    if picture is None:
        return
    if job.chunking is not None:
        raise FormatError(f"{picture.path}: a picture is not cut into chunks; leave --chunk out")
    if job.options.form is OutputForm.SPARSE:
        raise FormatError(f"{picture.path}: a picture has vectors, and no weights of terms")


def _check_contexts(job: CorpusJob) -> None:
    """Refuse contexts with what has no place for them.

    Raises:
        FormatError: The job asks for such a thing.
    """
    if job.chunking is not None and job.chunking.is_late:
        raise FormatError(
            "late chunks are read in the context of their document already; leave --context-column or --late out"
        )
    if job.options.form is not OutputForm.DENSE:
        raise FormatError(
            f"a context is left out of the pooling, and {job.options.form} outputs are not pooled; leave "
            "--context-column out"
        )
    if job.options.truncate is Truncation.WINDOWS:
        raise FormatError(
            "texts with a context are not read in windows; let --truncate be end, start or error, or leave "
            "--context-column out"
        )


def _check_groups(job: CorpusJob) -> None:
    """Refuse groups with what has no place for them.

    Raises:
        FormatError: The job asks for such a thing.
    """
    if job.chunking is not None:
        raise FormatError(
            "the texts of a group are parts already; leave --group-column or --chunk out"
        )
    if job.options.form is not OutputForm.DENSE:
        raise FormatError(
            f"groups have one vector, and {job.options.form} outputs are of single texts; leave --group-column out"
        )
    if job.id_kind is IdKind.SHA256 or job.columns.id is not None:
        raise FormatError(
            "the id of a group is its value in --group-column; leave --id-column and --id sha256 out"
        )


def scan_job(job: CorpusJob) -> CorpusScan:
    """Read each record once; of standard input nothing is known.

    Raises:
        FormatError: A record cannot be read, two have one id, or the job cannot be.
    """
    check_job(job)
    return scan(job.sources, job.columns, job.id_kind)


async def embed_corpus(
    source: CorpusEmbedder,
    job: CorpusJob,
    on_progress: ProgressListener,
    *,
    on_commit: CommitListener = ignore_commits,
    found: CorpusScan | None = None,
) -> CorpusSummary:
    """Embed all texts of a job.

    A run that was interrupted leaves a draft beside the target, or rows in the store; the next run of the same job
    resumes from there.

    Args:
        source: The engine, or a server.
        job: What to embed.
        on_progress: Called with records and tokens done since the last call; first with the records of an earlier run.
        on_commit: Called with the number of records that an interruption does not lose.
        found: What `scan_job` returned, if it was called.

    Raises:
        FormatError: A record cannot be read, or the model refuses its text; the error names the line.
        InputError: The model refuses an option.
        ArtefactError: The target cannot be written; nothing is left half written under its name.
    """
    found = await asyncio.to_thread(scan_job, job) if found is None else found
    model = await source.model(job.options)
    if job.columns.context or job.columns.group:
        await source.check_composition(
            job.options,
            has_contexts=bool(job.columns.context),
            has_groups=bool(job.columns.group),
        )
    if job.chunking is not None:
        job = replace(job, chunking=job.chunking.for_model(model))
    layout = store_layout(job, model, found)
    maker = RowMaker(job.id_kind, job.chunking, layout.columns, salt_of(job.options, job.chunking))

    async def fill(sink: Sink) -> CorpusSummary:
        try:
            summary = await Pipeline(source, job, maker, sink, on_progress, on_commit).run()
            return replace(summary, metadata=layout.metadata)
        finally:
            sink.close()

    if job.store:
        kind = find_store(job.store)
        assert kind is not None  # noqa: S101 - for mypy: `check_job` has refused it
        return await fill(await asyncio.to_thread(StoreSink, lambda: kind.open(job.store, layout)))
    files = FileLayout(
        layout,
        job.options.form,
        has_places=job.chunking is not None,
        has_hashes=job.appends,
    )
    if job.target is None:
        return await fill(StdoutSink(files))
    return await _fill_draft(job, job.target, files, _identity(job, model, layout), fill)


async def _fill_draft(
    job: CorpusJob,
    target: Path,
    layout: FileLayout,
    identity: dict[str, object],
    fill: Callable[[Sink], Awaitable[CorpusSummary]],
) -> CorpusSummary:
    """Fill a draft of a file, and leave it to a later run where this one ends early.

    Raises:
        ArtefactError: The target cannot be written.
    """
    try:
        draft = Draft(target, identity)
        try:
            return await fill(await asyncio.to_thread(_draft_sink, draft, job, layout))
        except (FormatError, InputError):
            # What is wrong with the job would be wrong in the next run too.
            draft.discard()
            raise
        finally:
            draft.close(keeps=job.can_resume)
    except OSError as error:
        raise ArtefactError(f"{target}: cannot be written ({error.strerror})") from error


def _draft_sink(draft: Draft, job: CorpusJob, layout: FileLayout) -> DraftSink:
    """Open a draft's files where an earlier run left them."""
    base = job.target if job.appends and job.target is not None and job.target.exists() else None
    try:
        return DraftSink(draft, replace(layout, offsets=draft.progress.offsets), base)
    except FileNotFoundError:
        # What the note of progress tells of is gone.
        draft.reset()
        return DraftSink(draft, layout, base)


def store_layout(job: CorpusJob, model: ModelDescription, found: CorpusScan) -> StoreLayout:
    """Describe what all rows of a job's output have in common.

    Raises:
        InputError: The dimensions do not fill whole bytes, or go with dense vectors only.
    """
    options = job.options
    dtype = options.output_dtype
    is_dense = options.form is OutputForm.DENSE
    if not is_dense and (
        dtype is not OutputDtype.FLOAT32 or (job.chunking and job.chunking.is_late)
    ):
        raise InputError(f"{options.form} outputs are float32, and of texts that stand alone")
    if options.form is OutputForm.SPARSE and options.dimensions is not None:
        raise InputError("sparse outputs have no dimensions", param="dimensions")
    dimensions = options.dimensions or model.hidden_size
    if dimensions % dtype.values_per_item:
        raise InputError(
            f"{dtype} packs 8 values a byte; {dimensions} dimensions are no multiple of 8",
            param="dimensions",
        )
    metadata = {
        "nestvec.model": model.name,
        "nestvec.space": model.space,
        "nestvec.dimensions": str(dimensions),
        "nestvec.output_dtype": dtype.value,
        "nestvec.source": model.source,
    }
    if not is_dense:
        metadata["nestvec.output"] = options.form.value
    if dtype in (OutputDtype.INT8, OutputDtype.UINT8):
        metadata["nestvec.quantization"] = model.quantization
    metadata |= {f"nestvec.{name}": f"{value:g}" for name, value in model.bound.items()}
    if options.layers is not None:
        metadata["nestvec.layers"] = str(options.layers)
    if options.map_name is not None:
        metadata["nestvec.map"] = options.map_name
    if model.labels:
        if options.dimensions is not None:
            raise InputError(
                "a map of labels gives a value for each, of which none come first; leave --dimensions out",
                param="dimensions",
            )
        metadata["nestvec.labels"] = json.dumps(model.labels, ensure_ascii=False)
    return StoreLayout(
        metadata=metadata,
        width=dimensions // dtype.values_per_item,
        dtype=dtype.storage_dtype.name,
        id_kind=job.id_kind,
        columns=found.columns,
        with_text=job.with_text,
    )


def _identity(job: CorpusJob, model: ModelDescription, layout: StoreLayout) -> dict[str, object]:
    """Return all that decides an output; standard input is never the same twice."""
    base = job.target.stat() if job.appends and job.target and job.target.exists() else None
    return {
        "sources": [source.identity() for source in job.sources]
        if job.can_resume
        else uuid.uuid4().hex,
        "columns": repr(job.columns),
        **({"template": job.columns.template} if job.columns.template else {}),
        **({"context": job.columns.context} if job.columns.context else {}),
        **({"groups": [job.columns.group, job.columns.weight]} if job.columns.group else {}),
        "options": [asdict(job.options), job.with_text, job.id_kind.value, job.prunes],
        "chunking": repr(job.chunking),
        "kept": dict(layout.columns),
        "base": [job.appends, base and [base.st_size, base.st_mtime_ns]],
        "model": asdict(model),
    }
