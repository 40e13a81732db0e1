"""The engine's process: models, queue and workers behind a socket; it knows no HTTP."""

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

from nestvec.assembly.service import build_pool
from nestvec.config.settings import Settings
from nestvec.engine.core.ports import Vitals
from nestvec.engine.models.model_pool import ModelPool
from nestvec.engine.models.model_registry import Slot
from nestvec.errors import NestvecError
from nestvec.ipc.engine_server import LinkServer
from nestvec.ipc.quarantine import Suspects
from nestvec.ipc.status_page import Flight
from nestvec.observability.logs import configure_logs, frames_of, get_logger
from nestvec.observability.metrics import Metrics, share_metrics
from nestvec.processes.event_loop_lag import watch_loop
from nestvec.processes.gpu_monitor import watch_gpu
from nestvec.processes.runtime_dir import Places

log = get_logger(__name__)

BEAT_S: Final = 0.1
MODEL_FAILED: Final = 3  # exit status


def run_core(settings: Settings, places: Places, number: int, restarts: int) -> None:
    """Life of the process.

    Args:
        settings: All of them; `device_id` is this core's.
        places: Shared with the other processes.
        number: Of the core.
        restarts: How many cores there were before; 0 for the first.
    """
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a terminal sends it to all; the supervisor says when
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    configure_logs(level=settings.log_level, style=settings.log_format)
    own = places.of_core(number)
    share_metrics(places.metrics, own.role)
    disable_created_metrics()  # type: ignore[no-untyped-call] # the library has not typed this one
    metrics = Metrics(CollectorRegistry(), own.role)
    if restarts:
        metrics.restarts.labels(own.role).inc()
    flight = Flight(own.flight, places.secret)
    suspects = Suspects(flight, own.suspects, time.monotonic)
    heart = Heart(flight, metrics, suspects, settings.batch_timeout_s)
    heart.start()
    try:
        heart.pool = pool = build_pool(settings, metrics, suspects)
    except NestvecError as error:
        log.error("model_failed", code=error.code, reason=error.message)  # noqa: TRY400 - the reason is whole
        sys.exit(MODEL_FAILED)
    except Exception as error:  # noqa: BLE001 - its message may quote a file's content
        log.error("model_crashed", frames=frames_of(error))  # noqa: TRY400
        sys.exit(MODEL_FAILED)
    watch_gpu(settings, metrics)
    asyncio.run(_serve(settings, pool, LinkServer(pool, own.socket), metrics))


async def _serve(settings: Settings, pool: ModelPool, server: LinkServer, metrics: Metrics) -> None:
    """Serve until the supervisor says so, or has gone."""
    told = pool.on_change

    def note(slot: Slot) -> None:
        told(slot)
        metrics.model_changed(slot)
        server.tell(slot)

    pool.on_change = note
    for slot in pool.models.all():
        metrics.model_changed(slot)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if (parent := multiprocessing.parent_process()) is not None:
        loop.add_reader(parent.sentinel, stop.set)
    watching = asyncio.create_task(watch_loop(metrics))
    await server.start()
    gc.collect()
    gc.freeze()
    metrics.ready.set(1)
    log.info("engine_ready", device=settings.device_id, pid=os.getpid())
    await stop.wait()
    watching.cancel()
    await server.close()
    await asyncio.to_thread(pool.close)


@dataclass(slots=True)
class Heart:
    """Says ten times a second that the process lives, and how its batches go.

    Attributes:
        flight: Where it says so.
        metrics: Told likewise.
        suspects: Counted.
        patience_s: What a batch may take.
        pool: Once it is there.
    """

    flight: Flight
    metrics: Metrics
    suspects: Suspects
    patience_s: float
    pool: ModelPool | None = None
    _thread: threading.Thread | None = field(default=None)

    def start(self) -> None:
        """Begin to beat."""
        self._thread = threading.Thread(target=self._live, name="nestvec-heart", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """Once."""
        now_s = time.monotonic()
        pool = self.pool
        cores = [] if pool is None else [model.core for model in pool.models.loaded()]
        vitals = [core.vitals(now_s, self.patience_s) for core in cores]
        over_s = max((one.overdue_s for one in vitals), default=0.0)
        # With several queues a front cannot know which one a call will join.
        one = vitals[0] if len(vitals) == 1 else Vitals()
        self.flight.note_queue(one.waiting_tokens, one.token_s, one.max_queue_tokens)
        self.flight.beat(now_s, is_ready=pool is not None, overdue_s=over_s)
        suspect, quarantined = self.suspects.counts
        self.metrics.overdue.set(over_s)
        self.metrics.suspects.set(suspect)
        self.metrics.quarantined.set(quarantined)

    def _live(self) -> None:
        while True:
            with contextlib.suppress(AttributeError):  # a model that is being closed meanwhile
                self.beat()
            time.sleep(BEAT_S)
