"""Machines whose queues have known answers, and one like a real one."""

from typing import Any

from nestvec.engine.types import Layout
from nestvec.tools.planning.coefficients import (
    FORMAT,
    BatchPricing,
    BatchTimes,
    FrontTimes,
    MachineCoefficients,
)

FREE = {"fixed_s": 0.0, "token_s": 0.0, "area_s": 0.0}


def machine(**changes: Any) -> MachineCoefficients:
    """Return a machine of one core and one worker, whose batches take 10 ms whatever is in them."""
    batch = BatchTimes(**(FREE | {"fixed_s": 0.01}))
    values: dict[str, Any] = {
        "format": FORMAT,
        "measured_on": "2026-01-01",
        "machine": "a test's",
        "model": "none",
        "precision": "fp32",
        "dimensions": 384,
        "max_tokens": 256,
        "cores": 1,
        "workers": 1,
        "lone_threads": 1,
        "max_batch_tokens": 256,
        "largest_batch_tokens": 1024,
        "pricing": BatchPricing(layout=Layout.PACKED, attention_per_pair=0.0, long_tokens=192),
        "batch": batch,
        "lone": batch,
        "slowdown": 1.0,
        "dispatch_s": 0.0,
        "idle_slowdown": 0.0,
        "noise": 0.0,
        "front": FrontTimes(request_s=0.0, text_s=0.0, token_s=0.0, wait_s=0.0, wake_s=0.0),
        "server_bytes": 300_000_000,
        "start_s": 2.0,
    }
    return MachineCoefficients(**(values | changes))


def real_machine(**changes: Any) -> MachineCoefficients:
    """Return a machine of two cores as a server's is: texts cost by their tokens, requests cost something too."""
    values = {
        "cores": 2,
        "workers": 2,
        "lone_threads": 2,
        "pricing": BatchPricing(
            layout=Layout.PACKED, attention_per_pair=1 / (6 * 384), long_tokens=192
        ),
        "batch": BatchTimes(fixed_s=0.001, token_s=5e-5, area_s=4e-5),
        "lone": BatchTimes(fixed_s=0.001, token_s=3e-5, area_s=2e-5),
        "slowdown": 1.1,
        "dispatch_s": 2e-4,
        "noise": 0.05,
        "front": FrontTimes(request_s=4e-4, text_s=2e-5, token_s=1e-6, wait_s=1e-4, wake_s=0.0),
    }
    return machine(**(values | changes))
