"""An engine process over a backend that an id kills: what `run_engine_process` runs, without a model's files."""

import asyncio
import os
import time
from pathlib import Path

from nestvec.engine.core.batching.batching_policy import BatchingOptions
from nestvec.engine.core.engine_core import CoreOptions, EngineCore
from nestvec.engine.models.model_pool import ModelPool
from nestvec.engine.models.model_registry import ModelRegistry
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.observer import NullObserver
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Batch, RawOutput
from nestvec.engine.vectors.pooler import Pooler
from nestvec.ipc.engine_server import EngineServer
from nestvec.ipc.in_flight_journal import InFlightJournal
from nestvec.ipc.quarantine import Quarantine
from nestvec.ipc.status_page import StatusPage
from typing_extensions import override

from tests.support.fakes import FakeBackend
from tests.support.served import SPEC

DEADLY_ID = 13
SECRET = b"s" * 32


class DeadlyBackend(FakeBackend):
    """Runs batches, and ends the process on an id."""

    @override
    def run(self, batch: Batch) -> RawOutput:
        """Run a batch, or end the process."""
        time.sleep(0.01)  # so that others run meanwhile
        if DEADLY_ID in batch.arrays["ids"]:
            os._exit(9)
        return super().run(batch)


def run(folder: Path, tokenizer: Path) -> None:
    """Serve until the process is killed."""
    journal = InFlightJournal(folder / "flight", SECRET)
    quarantine = Quarantine(journal, folder / "suspects.json", time.monotonic)
    StatusPage(folder / "flight").reset()
    options = CoreOptions(BatchingOptions(2, 16, 64, 10_000, 3600.0, 60.0), Pooler("mean"))
    core = EngineCore("fake", DeadlyBackend(), options, NullObserver(), crash_guard=quarantine)
    core.start()
    models = ModelRegistry()
    reader = Tokenizer(tokenizer, max_tokens=16, vocabulary_size=SPEC.vocabulary_size)
    models.add(ServedModel(SPEC, reader, core))

    async def serve() -> None:
        server = EngineServer(ModelPool(models), folder / "sock")
        await server.start()
        await asyncio.Event().wait()

    asyncio.run(serve())
