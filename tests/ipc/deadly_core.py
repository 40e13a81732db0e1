"""A core in a process of its own, over a backend that an id kills: what `run_core` is, without a model's files."""

import asyncio
import os
import time
from pathlib import Path

from nestvec.engine.core.engine_core import CoreOptions, EngineCore
from nestvec.engine.models.model_pool import ModelPool
from nestvec.engine.models.model_registry import Models
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Batch, NullObserver, RawOutput
from nestvec.engine.vectors.pooler import Outputs
from nestvec.ipc.engine_server import LinkServer
from nestvec.ipc.quarantine import Suspects
from nestvec.ipc.status_page import Flight
from typing_extensions import override

from tests.support.fakes import FakeBackend
from tests.support.served import SPEC

DEADLY_ID = 13
SECRET = b"s" * 32


class DeadlyBackend(FakeBackend):
    """Ends the process on an id."""

    @override
    def run(self, batch: Batch) -> RawOutput:
        """Run, or die of it."""
        time.sleep(0.01)  # so that others run meanwhile
        if DEADLY_ID in batch.arrays["ids"]:
            os._exit(9)
        return super().run(batch)


def run(folder: Path, tokenizer: Path) -> None:
    """Serve until killed."""
    flight = Flight(folder / "flight", SECRET)
    suspects = Suspects(flight, folder / "suspects.json", time.monotonic)
    options = CoreOptions(2, 16, 64, 10_000, 60.0, Outputs("mean"))
    core = EngineCore("fake", DeadlyBackend(), options, NullObserver(), recorder=suspects)
    core.start()
    models = Models()
    reader = Tokenizer(tokenizer, max_tokens=16, vocabulary_size=SPEC.vocabulary_size)
    models.add(ServedModel(SPEC, reader, core))

    async def serve() -> None:
        server = LinkServer(ModelPool(models), folder / "sock")
        await server.start()
        await asyncio.Event().wait()

    asyncio.run(serve())
