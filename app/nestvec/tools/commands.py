"""The command line's offline work on one model: tuning and calibration."""

import time
from pathlib import Path
from typing import Final

from nestvec.assembly.execution import (
    GPU_PRECISIONS,
    backend_options_for,
    default_settings_for,
    machine_key_for,
    provider_for,
)
from nestvec.assembly.package import prepare_model
from nestvec.backends.open import open_backend
from nestvec.config.settings import Settings
from nestvec.model_store.artefacts.precision import Precision
from nestvec.model_store.output_calibration import OutputCalibration, calibrate_outputs
from nestvec.system.cpus import usable_cpus
from nestvec.system.malloc import keep_freed_memory
from nestvec.tools.tuning.report import TuningReport
from nestvec.tools.tuning.run import TuningRun
from nestvec.tools.tuning.search import GPU_BUDGETS

# The precisions that tuning compares, on CPUs and on a GPU.
TUNED_PRECISIONS: Final = (
    (Precision.FP32, Precision.INT8, Precision.INT8_ACCURATE, Precision.BF16),
    GPU_PRECISIONS,
)


def tune_model(settings: Settings, *, limit_s: float, compares: bool) -> TuningReport:
    """Find the settings with which the model runs fastest on this machine, and keep them.

    Args:
        settings: Settings of the model, with its precision.
        limit_s: Time for the search, in seconds.
        compares: Whether to export and time the other precisions too.

    Raises:
        ModelError: The model cannot be run, or the cache cannot be written.
    """
    package = prepare_model(settings)
    keep_freed_memory()
    is_gpu = provider_for(settings, package) == "cuda"
    # A graph for a device is opened for the largest batches that will be tried.
    opened = (
        settings.model_copy(update={"max_batch_tokens": max(GPU_BUDGETS)}) if is_gpu else settings
    )
    run = TuningRun(
        package=package,
        prepare=lambda precision: prepare_model(
            settings.model_copy(update={"precision": precision.value})
        ),
        open_backend=open_backend,
        machine=machine_key_for(settings, package),
        start=default_settings_for(package, "cuda" if is_gpu else "cpu"),
        backend_options_for=lambda other, tuned: backend_options_for(opened, other, tuned),
        cpus=usable_cpus(),
        limit_s=limit_s,
        clock=time.perf_counter,
        is_gpu=is_gpu,
    )
    return run.run(TUNED_PRECISIONS[is_gpu] if compares else [])


def calibrate_model(settings: Settings, texts: Path | None) -> OutputCalibration:
    """Set the ranges of a model's 8-bit vectors by the user's texts, or again by the bundled ones.

    Args:
        settings: Settings of the model.
        texts: File with a text on each line; None for the bundled ones.

    Raises:
        ModelError: The model cannot be run, the file cannot be read, or the cache cannot be written.
    """
    package = prepare_model(settings)
    return calibrate_outputs(package, texts, open_backend)
