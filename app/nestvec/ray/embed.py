"""Embed: the texts of a dataset's batches to vectors, in an actor of Ray Data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Unpack

import numpy as np

from nestvec.assembly.library.calls import CALLS_IN_FLIGHT, together
from nestvec.assembly.library.loop_thread import LoopThread
from nestvec.assembly.service import build_corpus_service
from nestvec.config.loading import load_settings
from nestvec.config.settings import Settings
from nestvec.corpus.embedders import Embedded, EngineEmbedder, ModelDescription, OutputForm
from nestvec.corpus.files.tables import table_schema, vector_columns
from nestvec.corpus.files.writer import FileLayout
from nestvec.corpus.job import CorpusJob
from nestvec.corpus.reading.readers import import_parquet
from nestvec.corpus.reading.records import Record, record_of, wanted_columns
from nestvec.corpus.run import store_layout
from nestvec.corpus.scan import CorpusScan
from nestvec.corpus.store_writer import joined_vectors
from nestvec.errors import FormatError, InputError
from nestvec.observability.logs import configure_library_logs
from nestvec.ray.options import TableJob, TableOptions, table_job

CALL_TEXTS: Final = 512
# What the vectors were made by, which every batch's schema tells.
SPACE: Final = "nestvec.space"


class Embed:
    """Embeds the texts of batches: a class for `ray.data.Dataset.map_batches`, Arrow tables in and out.

    A batch comes back with its columns (or those of `keep_columns`) and its vectors: a column `embedding`, a fixed-size
    list; for sparse outputs `indices` and `values`. The schema's metadata names the model, the space of its vectors and
    what else `nestvec embed` writes into Parquet. The model is loaded once an actor, which runs as many threads as Ray
    has reserved CPUs for it.

        dataset.map_batches(
            Embed,
            fn_constructor_kwargs={"model": "all-MiniLM-L6-v2", "dimensions": 128},
            batch_format="pyarrow",
            num_cpus=4,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=8),
        )

    Args:
        model: Card name, folder, or Hub id (org/name); by default what NESTVEC_MODEL says on the actor's node.
        settings: Any setting by its name in docs/configuration.md; NESTVEC_* variables of the node set the
            others.
        config: A TOML file with settings, on the node.
        options: What is asked for all texts: `TableOptions`.

    Raises:
        ConfigError: A setting is wrong.
        InputError: An option is unknown, or the model does not do what it asks for.
        FormatError: pyarrow is missing, or the model's vectors are not of the space asked for.
        ModelError: The model cannot be fetched, exported or run.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        config: str | Path | None = None,
        **options: Unpack[TableOptions],
    ) -> None:
        import_parquet()
        configure_library_logs()
        self._job = table_job(options)
        given = {**({} if model is None else {"model": model}), **(settings or {})}
        loaded = _settings(given, config, self._job)
        # What the settings say counts for the texts as it does in `nestvec embed`.
        template = self._job.columns.template or loaded.text.template or ""
        self._columns = replace(self._job.columns, template=template)
        self._service = build_corpus_service(loaded, self._job.recipe)
        self._loop = LoopThread()
        try:
            self._embedder = EngineEmbedder(self._service, self._job.recipe)
            self._description = self._loop.run(self._embedder.model(self._job.texts))
            if self._columns.context:
                self._loop.run(
                    self._embedder.check_composition(
                        self._job.texts, has_contexts=True, has_groups=False
                    )
                )
            self._layout = file_layout(self._job, self._description)
        except BaseException:
            self.close()
            raise

    @property
    def metadata(self) -> dict[str, str]:
        """What each batch's schema tells of its vectors: nestvec.model, nestvec.space, nestvec.dimensions and more."""
        return dict(self._layout.store.metadata)

    def __call__(self, table: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
        """Embed the texts of a table; returns one of the same rows with their vectors.

        Raises:
            FormatError: A column is missing, or a row has no text, or one that the model refuses; names the row by its
                id, or by its number in the batch.
        """
        return self.embed_table(table)[0]

    def embed_table(self, table: Any) -> tuple[Any, int, int]:  # noqa: ANN401 - pyarrow has no types
        """Embed the texts of a table as a call does; also returns the number of tokens, and of texts that were cut.

        Raises:
            FormatError: As a call does.
        """
        import pyarrow as pa

        records = list(self._records(table))
        embedded = self._embed(records)
        schema = table_schema(self._layout)
        found = vector_columns(embedded.vectors, schema, self._layout)
        arrays = {name: table.column(name) for name in self._job.kept(table.column_names)}
        for name in self._job.vector_columns:
            value = found[name]
            is_array = isinstance(value, pa.Array)
            arrays[name] = value if is_array else pa.array(value, schema.field(name).type)
        return pa.table(arrays, metadata=schema.metadata), embedded.tokens, embedded.truncated

    def close(self) -> None:
        """Free the model; an actor's is freed with its process."""
        self._service.close()
        self._loop.close()

    def _records(self, table: Any) -> Iterator[Record]:  # noqa: ANN401 - pyarrow has no types
        """Yield what is read of each row."""
        columns = self._columns
        id_column = columns.id or "id"
        rows = table.select(wanted_columns(table.column_names, columns)).to_pylist()
        for number, row in enumerate(rows):
            # Rows of a cluster have no numbers but those of the batch that they happen to be in.
            name = row.get(id_column)
            where = f"row {number} of a batch" if name is None else f"the row of {id_column} {name}"
            yield record_of(row, columns, where, number)

    def _embed(self, records: Sequence[Record]) -> Embedded:
        """Embed records, in order.

        Raises:
            FormatError: A text is refused; names its row.
        """
        if not records:
            layout = self._layout
            if layout.form is not OutputForm.DENSE:
                return Embedded([], 0, 0)
            return Embedded(np.zeros((0, layout.store.width), layout.store.dtype), 0, 0)
        try:
            return self._loop.run(self._in_calls(records))
        except InputError as error:
            if error.input_index is None:
                raise
            where = records[error.input_index].where
            raise FormatError(f"{where}: {error.message}") from error

    async def _in_calls(self, records: Sequence[Record]) -> Embedded:
        """Embed records in calls that each take a second or so, two at a time."""
        texts = [record.text for record in records]
        contexts = [record.context for record in records]
        parts: dict[int, Embedded] = {}
        start = 0

        async def work() -> None:
            nonlocal start
            while start < len(texts):
                first = start
                start += min(CALL_TEXTS, self._embedder.pacer.take(texts, first))
                part = slice(first, start)
                try:
                    parts[first] = await self._embedder.embed(
                        texts[part], self._job.texts, contexts=contexts[part]
                    )
                except InputError as error:
                    if error.input_index is not None:
                        error.input_index += first
                    raise

        await together([work() for _ in range(CALLS_IN_FLIGHT)])
        ordered = [parts[first] for first in sorted(parts)]
        return Embedded(
            joined_vectors([part.vectors for part in ordered]),
            sum(part.tokens for part in ordered),
            sum(part.truncated for part in ordered),
        )


def file_layout(job: TableJob, model: ModelDescription) -> FileLayout:
    """Describe the vectors of a dataset as `nestvec embed` describes those of a file.

    Raises:
        InputError: The model does not do what is asked for.
        FormatError: Its vectors are of another space than they must be.
    """
    of_file = CorpusJob(sources=(), target=None, columns=job.columns, options=job.texts)
    store = store_layout(of_file, model, CorpusScan())
    if job.space and store.metadata[SPACE] != job.space:
        raise FormatError(
            f"{model.name}: its vectors are of space {store.metadata[SPACE]} on this node, and of {job.space} where "
            "the run began; let all nodes have the same model, settings and version of nestvec"
        )
    return FileLayout(store, job.texts.form)


def assigned_threads() -> int | None:
    """Return how many CPUs Ray has reserved for this actor or task; None outside of one."""
    try:
        import ray
    except ImportError:
        return None
    if not ray.is_initialized():
        return None
    resources = ray.get_runtime_context().get_assigned_resources()
    return max(1, int(resources["CPU"])) if "CPU" in resources else None


def _settings(given: Mapping[str, Any], config: str | Path | None, job: TableJob) -> Settings:
    """Return the settings of an actor: as many threads as it has CPUs, and the template as part of the model.

    Raises:
        ConfigError: A setting is wrong.
        InputError: There is no such recipe.
    """
    flags = dict(given)
    if (threads := assigned_threads()) is not None:
        # Tokenizing and running take turns more than they meet: static models do the one, all others the other.
        flags = {"worker_threads": threads, "front_threads": threads, "lone_threads": 1} | flags
    settings = load_settings(flags, config=None if config is None else Path(config), spell=str)
    if job.recipe and job.recipe not in settings.recipes:
        known = ", ".join(settings.recipes) or "none"
        raise InputError(
            f"the settings have no recipe '{job.recipe}'; they have: {known}", param="recipe"
        )
    if template := job.columns.template:
        text = settings.text.model_copy(update={"template": template})
        settings = settings.model_copy(update={"text": text})
    return settings
