"""A core in a process of its own, over a backend that an id kills: what `run_core` is, without a model's files."""

import asyncio
import os
import time
from pathlib import Path

from typing_extensions import override

from app.engine.core import CoreOptions, EngineCore
from app.engine.outputs import Outputs
from app.engine.pool import ModelPool
from app.engine.registry import ServedModel
from app.engine.slots import Models
from app.engine.tokenizer import Tokenizer
from app.engine.types import Batch, NullObserver, RawOutput
from app.link.flight import Flight
from app.link.server import LinkServer
from app.link.suspects import Suspects
from tests.fakes import FakeBackend
from tests.served import SPEC

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
