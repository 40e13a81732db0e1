"""Runs a device graph at several sizes and tells where its nodes ran.

It is a process of its own: the runtime must be told at its start to print which attention it takes.

Usage: python -m nestvec.tools.diagnostics.device_run GRAPH MAX_TOKENS DEVICE_ID
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from nestvec.backends.cuda.backend import DeviceBackend
from nestvec.backends.cuda.device_thread import DeviceLine
from nestvec.backends.open import line_of
from nestvec.engine.backend import DeviceOptions
from nestvec.engine.core.collate import collate
from nestvec.engine.types import Item, Layout
from nestvec.errors import ProviderError
from nestvec.tools.diagnostics.attention_kernels import DEBUG, FUSED, Route, read_routes

MARK: Final = "PLACEMENT "
BATCHES: Final = ((8,), (16,) * 16, (100, 3, 40), (256,) * 4, (512, 16))
MEMORY_SHARE: Final = 0.5
WAIT_S: Final = 300.0
# Nodes that only reckon with shapes belong on the CPU.
SHAPE_OPS: Final = (
    "Shape",
    "Concat",
    "Gather",
    "Slice",
    "Squeeze",
    "Unsqueeze",
    "Cast",
    "Add",
    "Mul",
)
CUDA: Final = "CUDAExecutionProvider"


@dataclass(frozen=True, slots=True)
class DeviceRun:
    """Where a graph ran.

    Attributes:
        placement: By provider, how often each op ran there.
        routes: Attention kernels.
        captured: Sizes whose launches could be captured.
    """

    placement: Mapping[str, Mapping[str, int]]
    routes: Counter[Route]
    captured: int

    @property
    def problems(self) -> list[str]:
        """What should not be, in words; none if all is well."""
        found = []
        for provider, ops in self.placement.items():
            strangers = sorted(set(ops) - set(SHAPE_OPS))
            if provider != CUDA and strangers:
                found.append(f"on {provider}: {', '.join(strangers)}")
        copies = [op for ops in self.placement.values() for op in ops if op.startswith("Memcpy")]
        if copies:
            found.append(f"copies between host and device: {', '.join(sorted(set(copies)))}")
        unfused = sorted({f"{r.op} in {r.dtype}" for r in self.routes if r.kernel not in FUSED})
        if unfused:
            found.append(f"attention without a fused kernel: {', '.join(unfused)}")
        return found


def run_apart(
    graph: Path, max_tokens: int, device_id: int, environment: Mapping[str, str]
) -> DeviceRun:
    """Run a graph in a process of its own and read what it tells.

    Raises:
        ProviderError: It failed; says how it ended.
    """
    command = [sys.executable, "-m", __name__, str(graph), str(max_tokens), str(device_id)]
    done = subprocess.run(  # noqa: S603 - our own module
        command,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        env={**environment, DEBUG: "1"},
        check=False,
    )
    return read_run(done.stdout, done.stderr, done.returncode)


def read_run(output: str, errors: str, status: int) -> DeviceRun:
    """What a run printed.

    Raises:
        ProviderError: It failed.
    """
    lines = output.splitlines()
    said = next((line[len(MARK) :] for line in lines if line.startswith(MARK)), None)
    if status or said is None:
        last = (errors.strip().splitlines() or ["nothing was said"])[-1]
        raise ProviderError(f"the graph does not run on the GPU (exit status {status}): {last}")
    found = json.loads(said)
    return DeviceRun(found["placement"], read_routes(lines), found["captured"])


def tell(graph: Path, max_tokens: int, line: DeviceLine) -> None:
    """Run the batches and print where nodes ran."""
    from nestvec.backends.cuda.onnx_session import OnnxDeviceSession

    opened: list[OnnxDeviceSession] = []

    def watched(path: Path, *, memory_limit: int, captures: bool) -> OnnxDeviceSession:
        session = OnnxDeviceSession(
            path, line.device, memory_limit=memory_limit, captures=captures, profiles=not captures
        )
        opened.append(session)
        return session

    plain = DeviceBackend(graph, line, watched, DeviceOptions(max_tokens, 1024, captured_tokens=0))
    for lengths in BATCHES:
        items = [Item(np.ones(min(n, max_tokens), np.int32)) for n in lengths]
        for pools in (True, False):
            plain.run(collate(items, Layout.PACKED, pools=pools))
    placement = opened[0].placement()
    plain.close()
    capturing = DeviceBackend(
        graph, line, watched, DeviceOptions(max_tokens, 1024, captured_tokens=256)
    )
    captured = len(capturing.captured)
    capturing.close()
    print(MARK + json.dumps({"placement": placement, "captured": captured}), flush=True)  # noqa: T201


def main(graph: str, max_tokens: str, device_id: str) -> None:
    """See the module."""
    line = line_of(int(device_id), MEMORY_SHARE)
    tell(Path(graph), int(max_tokens), line)


if __name__ == "__main__":
    main(*sys.argv[1:])
