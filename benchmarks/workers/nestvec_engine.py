"""Our engine in process: `EmbeddingService`, tokenizing included. Arguments: folder of the model, precision."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "app")]

from nestvec import __version__
from nestvec.assembly.service import build_local_service
from nestvec.config.loading import load_settings
from nestvec.engine.observer import NullObserver
from nestvec.engine.types import EmbedCall, Priority, Truncation
from nestvec.observability.logs import configure_logs
from protocol import serve

# Inputs in a call, as many as the API allows.
CHUNK = 2048


def main() -> None:
    """Make one service for each budget that is asked for, and serve."""
    configure_logs(level="warning", style="json")
    loop = asyncio.new_event_loop()
    engines: dict[int, Any] = {}

    async def embed(service: Any, texts: Sequence[str]) -> Any:
        parts = [texts[i : i + CHUNK] for i in range(0, len(texts), CHUNK)]
        calls = (
            service.embed(EmbedCall(p, truncate=Truncation.END, priority=Priority.BULK))
            for p in parts
        )
        return [row for answer in await asyncio.gather(*calls) for row in answer.vectors]

    def encode(texts: Sequence[str], setting: dict[str, Any]) -> Any:
        budget = setting["budget"]
        if budget not in engines:
            flags = {
                "offline": True,
                "precision": sys.argv[2],
                "max_batch_tokens": budget,
            }
            settings = load_settings(flags).for_offline_tools()
            engines[budget] = build_local_service(settings, NullObserver())
        return loop.run_until_complete(embed(engines[budget], texts))

    serve({"nestvec": __version__, "onnxruntime": onnxruntime.__version__}, encode)


main()
