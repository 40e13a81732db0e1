"""Embeds Parquet files into a folder of Parquet by Ray Data, and goes on with a run that was interrupted."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from nestvec.errors import ArtefactError, FormatError, InternalError, NestvecError
from nestvec.ray.embed import Embed
from nestvec.ray.folders import ArrowPath, SourceFiles
from nestvec.ray.ids import count_rows, refuse_doubled_ids
from nestvec.ray.note import (
    CHECKPOINT_ENDING,
    RunNote,
    check_note,
    completed,
    read_note,
    write_note,
)
from nestvec.ray.pool import ActorPool, plan_pool, rows_of_files
from nestvec.ray.tally import CountedEmbed, Tally, Totals
from nestvec.system.extras import how_to_install

# Ray Data reads footers by 32 processes, however few files there are; so many files are work for one of them.
FOOTER_VARIABLE: Final = "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS"
FOOTERS_PER_ACTOR: Final = 256
MAX_FOOTER_ACTORS: Final = 32
# How often the tally is asked.
LOOK_S: Final = 1.0
# An actor has its next batch while it runs one.
BATCHES_IN_FLIGHT: Final = 2

Listener = Callable[[Totals], None]


@dataclass(frozen=True, slots=True)
class RayRun:
    """What is embedded on a cluster, and how.

    Attributes:
        sources: The texts.
        target: The folder of the vectors.
        target_name: What the user calls it.
        id_column: The column of ids, each of which must be there once.
        columns: The columns that are read; None for all of them.
        embed: What `Embed` is given, but for the space.
        cpus: CPUs of an actor; 0 for what suits the cluster.
        actors: How many actors there may be; 0 for what fits.
        uses_gpus: Whether each takes a GPU; None: where the cluster has some.
        batch_rows: Rows that an actor embeds at a time.
    """

    sources: SourceFiles
    target: ArrowPath
    target_name: str
    id_column: str
    columns: list[str] | None
    embed: Mapping[str, Any]
    cpus: int = 0
    actors: int = 0
    uses_gpus: bool | None = None
    batch_rows: int = 1024

    @property
    def checkpoint(self) -> ArrowPath:
        """The folder of the ids that are done, beside the target."""
        return self.target.beside(CHECKPOINT_ENDING)


@dataclass(frozen=True, slots=True)
class RaySummary:
    """What a run did.

    Attributes:
        rows: Number of rows in the folder.
        resumed: How many of them an earlier run had made.
        totals: What the actors of this run have done.
        pool: The actors; None where there was nothing to do.
    """

    rows: int
    resumed: int = 0
    totals: Totals = field(default_factory=Totals)
    pool: ActorPool | None = None


class InterruptedRunError(KeyboardInterrupt):
    """Ctrl-C, after the cluster was told.

    Attributes:
        kept: Number of rows that the next run need not embed.
        rows: Number of all rows.
    """

    def __init__(self, kept: int, rows: int) -> None:
        super().__init__()
        self.kept, self.rows = kept, rows


def import_ray() -> Any:  # noqa: ANN401 - Ray is absent where types are checked
    """Return the module `ray`, with `ray.data`.

    Raises:
        FormatError: It is not installed; the error says how to get it.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise FormatError(f"--ray needs Ray Data: {how_to_install('ray')}") from error
    return ray


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine, until the end of the block.

    Args:
        address: As `ray.init` takes it; "" for RAY_ADDRESS, else a cluster that runs on this machine, else a new one.

    Raises:
        ArtefactError: There is no cluster at the address.
    """
    ray = import_ray()
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    try:
        ray.init(address or None, logging_level=logging.WARNING, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ArtefactError(f"--ray: no cluster to be reached: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def run_on_ray(
    run: RayRun, address: str, on_start: Callable[[int, int], None], on_progress: Listener
) -> RaySummary:
    """Embed all rows of a run.

    The folder holds Parquet files, and a note of what they are. Ray Data notes the ids of each file that is whole, so
    that a later run of the same does the others; at the end all rows are counted.

    Args:
        run: What is embedded.
        address: The cluster, as for `connected`.
        on_start: Called with the number of rows, and of those that an earlier run has made, once a model is there.
        on_progress: Called each second with what was done since.

    Raises:
        FormatError: A column or a text is refused, an id comes twice, or the folder holds something else.
        InputError: The model does not do what is asked for.
        ArtefactError: The cluster cannot be reached, or the folder not be written.
        InterruptedRunError: Ctrl-C.
    """
    import_ray()
    found = read_note(run.target, run.target_name)
    if found is not None and found.is_complete:
        # Without a cluster, and without a model: whoever starts it again in a loop is answered at once.
        check_note(found, replace(note_of(run, {}), model=found.model), run.target_name)
        return RaySummary(found.rows, resumed=found.rows)
    note = None
    try:
        with connected(address), _plain_errors():
            pool = _pool(run, resumes=found is not None)
            note = _begin(run, pool, found)
            resumed = count_rows(run.checkpoint)
            on_start(note.rows, resumed)
            totals = _embed(run, pool, note, on_progress)
            _finish(run, note)
    except KeyboardInterrupt:
        kept = 0 if note is None else count_rows(run.checkpoint)
        raise InterruptedRunError(kept, 0 if note is None else note.rows) from None
    return RaySummary(note.rows, resumed, totals, pool)


def describe(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Load a model and return what it notes of its vectors; a task, on a node like those of the actors."""
    embed = Embed(**arguments)
    try:
        return embed.metadata
    finally:
        embed.close()


def note_of(run: RayRun, model: Mapping[str, str]) -> RunNote:
    """Return the note of a run."""
    options = {"id_column": run.id_column, "columns": run.columns, **run.embed}
    # Where a node keeps models and how many threads it runs decides no vectors.
    settings = {k: v for k, v in options.pop("settings", {}).items() if k not in OF_MACHINES}
    return RunNote(run.sources.identity, {**options, "settings": settings}, model)


OF_MACHINES: Final = frozenset(
    (
        *("cache_dir", "models_dir", "offline", "packed_weights_cache", "provider"),
        *("worker_threads", "intra_op_threads", "lone_threads", "front_threads"),
        *("max_batch_tokens", "max_batch_ms", "lookahead_items", "gpu_memory_utilization"),
    )
)


def _pool(run: RayRun, *, resumes: bool) -> ActorPool:
    """Choose the actors by the nodes that are there."""
    ray = import_ray()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return plan_pool(
        nodes, cpus=run.cpus, actors=run.actors, uses_gpus=run.uses_gpus, resumes=resumes
    )


def _begin(run: RayRun, pool: ActorPool, found: RunNote | None) -> RunNote:
    """Return the note of the run that is gone on with, or write that of a new one.

    Raises:
        FormatError: The folder holds another run, or two rows have one id.
    """
    ray = import_ray()
    task = ray.remote(num_cpus=pool.cpus, num_gpus=pool.gpus, max_calls=1)(describe)
    note = note_of(run, ray.get(task.remote(dict(run.embed))))
    if found is not None:
        return check_note(found, note, run.target_name)
    # What a folder that is gone has left beside it would have its rows passed over.
    run.checkpoint.remove()
    note = replace(note, rows=refuse_doubled_ids(run.sources, run.id_column))
    write_note(run.target, note)
    return note


def _embed(run: RayRun, pool: ActorPool, note: RunNote, on_progress: Listener) -> Totals:
    """Run the pipeline of Ray Data: read, cut into blocks, embed, write."""
    ray = import_ray()
    from ray.data import ActorPoolStrategy
    from ray.data.checkpoint import CheckpointConfig

    tally = _start_tally()
    readers = min(MAX_FOOTER_ACTORS, 1 + len(run.sources.paths) // FOOTERS_PER_ACTOR)
    os.environ.setdefault(FOOTER_VARIABLE, str(readers))
    dataset = ray.data.read_parquet(
        run.sources.paths,
        filesystem=run.sources.filesystem,
        columns=run.columns,
    )
    dataset.context.enable_progress_bars = False
    # It advises memory for reading that the nodes have.
    dataset.context.issue_detectors_config.detectors = []
    dataset.context.checkpoint_config = CheckpointConfig(
        id_column=run.id_column,
        checkpoint_path=run.checkpoint.path,
        override_filesystem=run.checkpoint.filesystem,
        # The folder's note must tell first that all is there.
        delete_checkpoint_on_success=False,
    )
    made = dataset.repartition(target_num_rows_per_block=run.batch_rows).map_batches(
        CountedEmbed,
        fn_constructor_args=(tally, {**run.embed, "space": note.model["nestvec.space"]}),
        batch_size=run.batch_rows,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            min_size=1,
            max_size=pool.actors,
            initial_size=pool.first,
            max_tasks_in_flight_per_actor=BATCHES_IN_FLIGHT,
        ),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
    )
    with _watched(tally, on_progress), _told_errors(tally):
        made.write_parquet(
            run.target.path,
            filesystem=run.target.filesystem,
            min_rows_per_file=rows_of_files(note.rows, run.batch_rows, pool),
        )
    totals: Totals = ray.get(tally.totals.remote())
    return totals


def _finish(run: RayRun, note: RunNote) -> None:
    """Check that every row is there, and note it.

    Raises:
        InternalError: There are more or fewer.
    """
    rows = count_rows(run.target)
    if rows != note.rows:
        raise InternalError(
            f"{run.target_name}: holds {rows} rows of {note.rows}; remove it and {CHECKPOINT_ENDING} beside it, and "
            "begin anew"
        )
    write_note(run.target, completed(note))
    run.checkpoint.remove()


def _start_tally() -> Any:  # noqa: ANN401 - Ray's handles have no types
    """Start the tally on this node, which lives as long as the run."""
    ray = import_ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Tally).remote()


@contextmanager
def _watched(tally: Any, on_progress: Listener) -> Iterator[None]:  # noqa: ANN401 - Ray's handles have no types
    """Tell what the actors have done each second, until the end of the block."""
    ray = import_ray()
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(LOOK_S):
            try:
                on_progress(ray.get(tally.totals.remote(), timeout=10 * LOOK_S))
            except ray.exceptions.RayError:
                continue  # the bar stands still, the run goes on

    thread = threading.Thread(target=watch, name="nestvec-tally", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextmanager
def _told_errors(tally: Any) -> Iterator[None]:  # noqa: ANN401 - Ray's handles have no types
    """Raise what an actor has told, in place of the traceback that Ray makes of it.

    Raises:
        FormatError: An actor has told why it cannot go on.
    """
    ray = import_ray()
    try:
        yield
    except (ray.exceptions.RayError, RuntimeError, ValueError, OSError):
        if problem := ray.get(tally.problem.remote()):
            raise FormatError(problem) from None
        raise


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise errors of ours as they were raised on their nodes, without the wrapping by Ray.

    Raises:
        NestvecError: One was raised on a node.
    """
    ray = import_ray()
    try:
        yield
    except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as error:
        inner: BaseException | None = error
        while inner is not None:
            if isinstance(inner, NestvecError):
                raise inner from None
            inner = getattr(inner, "cause", None) or inner.__cause__
        raise
