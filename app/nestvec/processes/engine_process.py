"""The engine process: models, queue and workers behind a socket; it knows no HTTP."""

import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, disable_created_metrics

from nestvec.assembly.recipes import check_recipes
from nestvec.assembly.service import build_pool
from nestvec.config.settings import Settings
from nestvec.engine.core.ports import CoreHealth
from nestvec.engine.models.model_pool import ModelPool
from nestvec.engine.models.model_registry import ModelSlot
from nestvec.errors import NestvecError
from nestvec.ipc.engine_server import EngineServer
from nestvec.ipc.in_flight_journal import InFlightJournal
from nestvec.ipc.quarantine import Quarantine
from nestvec.ipc.status_page import StatusPage
from nestvec.observability.energy_metrics import energy_zones
from nestvec.observability.logs import configure_logs, frames_of, get_logger
from nestvec.observability.metrics import Metrics
from nestvec.observability.process_metrics import ProcessMetrics
from nestvec.observability.shared_metrics import share_metrics
from nestvec.observability.tracing.batch_spans import BatchSpans
from nestvec.observability.tracing.environment import start_recorder
from nestvec.processes.child import MODEL_FAILED, Restarts
from nestvec.processes.event_loop_lag import measure_event_loop_lag
from nestvec.processes.gpu_monitor import start_gpu_monitor
from nestvec.processes.runtime_dir import RuntimeDir
from nestvec.system.cuda_driver import show_one_gpu

log = get_logger(__name__)

HEARTBEAT_INTERVAL_S: Final = 0.1
# How often it is looked whether this process's files are still there.
KEEP_INTERVAL_S: Final = 1.0


def run_engine_process(
    settings: Settings, runtime_dir: RuntimeDir, number: int, restarts: Restarts
) -> None:
    """Run an engine process until the supervisor ends it.

    Args:
        settings: All settings; `device_id` is this engine's.
        runtime_dir: Shared with the other processes.
        number: Number of the engine among several.
        restarts: What became of the processes that this engine has had before.
    """
    # A terminal sends SIGINT to all processes; the supervisor decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    configure_logs(level=settings.log_level, style=settings.log_format)
    here = settings
    # Libraries that select no GPU use the first, which is another engine's.
    if settings.device_id and show_one_gpu(os.environ, settings.device_id):
        here = settings.model_copy(update={"device_id": 0})
    files = runtime_dir.engine_files(number)
    share_metrics(runtime_dir.metrics, files.role)
    disable_created_metrics()  # type: ignore[no-untyped-call] # the library has not typed this one
    metrics = Metrics(CollectorRegistry(), files.role)
    metrics.processes.note_start(restarts.earlier, was_hung=restarts.was_hung)
    recorder = start_recorder(files.role, metrics.spans)
    if recorder is not None:
        metrics.engine.record_batch = BatchSpans(recorder, serves_others=True).record
    journal = InFlightJournal(files.status_page, runtime_dir.secret)
    quarantine = Quarantine(journal, files.quarantine, time.monotonic)
    status_page = StatusPage(files.status_page)
    heartbeat = HeartbeatThread(
        status_page, metrics.processes, quarantine, settings.batch_timeout_s
    )
    heartbeat.start()
    try:
        pool = build_pool(here, metrics.engine, quarantine)
        check_recipes(pool, here)
        heartbeat.pool = pool
    except NestvecError as error:
        log.error(  # noqa: TRY400 - the reason is whole
            "model_failed", code=error.code, reason=error.message, device=settings.device_id
        )
        sys.exit(MODEL_FAILED)
    except Exception as error:  # noqa: BLE001 - its message may quote a file's content
        log.error("model_crashed", frames=frames_of(error))  # noqa: TRY400
        sys.exit(MODEL_FAILED)
    start_gpu_monitor(here, metrics.gpu, settings.device_id)
    if number == 0:  # once for the machine, however many processes there are
        metrics.energy.watch(energy_zones())
    asyncio.run(_serve(settings, pool, EngineServer(pool, files.socket), metrics, quarantine))
    if recorder is not None:
        recorder.close()


async def _serve(
    settings: Settings,
    pool: ModelPool,
    server: EngineServer,
    metrics: Metrics,
    quarantine: Quarantine,
) -> None:
    """Serve until the supervisor says so, or has gone."""
    earlier_listener = pool.on_change

    def on_change(slot: ModelSlot) -> None:
        earlier_listener(slot)
        metrics.model_changed(slot)
        server.announce(slot)

    pool.on_change = on_change
    for slot in pool.models.all():
        metrics.model_changed(slot)
    metrics.queues.watch(pool.models.loaded)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if (parent := multiprocessing.parent_process()) is not None:
        loop.add_reader(parent.sentinel, stop.set)
    tasks = [asyncio.create_task(measure_event_loop_lag(metrics))]
    await server.start()
    tasks.append(asyncio.create_task(_keep_files(server, quarantine)))
    gc.collect()
    gc.freeze()
    metrics.service.ready.set(1)
    log.info("engine_ready", device=settings.device_id, pid=os.getpid())
    await stop.wait()
    for task in tasks:
        task.cancel()
    await server.close()
    await asyncio.to_thread(pool.close)


async def _keep_files(server: EngineServer, quarantine: Quarantine) -> None:
    """Make anew what has vanished of this process's files, for as long as the loop runs."""
    while True:
        await asyncio.sleep(KEEP_INTERVAL_S)
        with contextlib.suppress(OSError):  # the supervisor says so
            await server.keep()
            await asyncio.to_thread(quarantine.keep)


@dataclass(slots=True)
class HeartbeatThread:
    """Notes ten times a second that the process lives, and how its batches and its queue are.

    Attributes:
        status_page: Where that is noted for the other processes.
        metrics: Where that is noted for operators.
        quarantine: Its sizes go into the metrics.
        batch_timeout_s: How long a batch may take.
        pool: The loaded models; None until they are there.
    """

    status_page: StatusPage
    metrics: ProcessMetrics
    quarantine: Quarantine
    batch_timeout_s: float
    pool: ModelPool | None = None
    _thread: threading.Thread | None = field(default=None)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="nestvec-heart", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """Note once how the process is."""
        now_s = time.monotonic()
        pool = self.pool
        cores = [] if pool is None else [model.core for model in pool.models.loaded()]
        healths = [core.health(now_s, self.batch_timeout_s) for core in cores]
        overdue_s = max((health.overdue_s for health in healths), default=0.0)
        # With several queues an HTTP process cannot know which one a call will join.
        queue = healths[0] if len(healths) == 1 else CoreHealth()
        self.status_page.note_queue(queue.waiting_tokens, queue.token_s, queue.max_queue_tokens)
        self.status_page.beat(now_s, is_ready=pool is not None, overdue_s=overdue_s)
        suspects, quarantined = self.quarantine.counts
        self.metrics.overdue.set(overdue_s)
        self.metrics.suspects.set(suspects)
        self.metrics.quarantined.set(quarantined)

    def _run(self) -> None:
        while True:
            with contextlib.suppress(AttributeError):  # a model that is being closed meanwhile
                self.beat()
            time.sleep(HEARTBEAT_INTERVAL_S)
