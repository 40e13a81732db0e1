"""The command line's offline work on one model: tuning, calibration, and what it costs on this machine."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import onnx
from tqdm import tqdm

from nestvec.assembly.execution import (
    GPU_PRECISIONS,
    backend_options_for,
    default_settings_for,
    execution_settings_for,
    machine_key_for,
    provider_for,
)
from nestvec.assembly.package import prepare_model
from nestvec.assembly.service import build_local_service
from nestvec.assembly.serving_backend import open_for_serving
from nestvec.backends.graph_io import attention_kinds
from nestvec.backends.open import open_backend
from nestvec.config.settings import Settings
from nestvec.engine.backend import CostModel
from nestvec.engine.observer import NullObserver
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Truncation
from nestvec.errors import ProviderError
from nestvec.model_store.artefacts.execution_settings import ExecutionSettings
from nestvec.model_store.artefacts.precision import Precision
from nestvec.model_store.output_calibration import OutputCalibration, calibrate_outputs
from nestvec.model_store.package import Package
from nestvec.system.cpus import cpu_model, usable_cpus
from nestvec.system.malloc import keep_freed_memory
from nestvec.tools.planning.coefficients import (
    FORMAT,
    BatchPricing,
    BatchTimes,
    FrontTimes,
    MachineCoefficients,
)
from nestvec.tools.planning.measuring.batch_times import BenchClock, FittedTimes, fit_batch_times
from nestvec.tools.planning.measuring.open_loads import LoadTurns, measure_turns
from nestvec.tools.planning.measuring.own_server import own_server
from nestvec.tools.planning.measuring.request_costs import (
    CONNECTIONS,
    RequestCosts,
    measure_requests,
)
from nestvec.tools.planning.open_load import FITTING_ROUNDS, fit_idle_slowdown
from nestvec.tools.planning.replica import ReplicaOptions
from nestvec.tools.planning.saturation import fit_busy, fit_wait, fit_wake
from nestvec.tools.quality.picture_vectors import calibration_pictures, unit_picture_vectors
from nestvec.tools.quality.vectors import ModelVectors
from nestvec.tools.tuning.report import TuningReport
from nestvec.tools.tuning.run import TuningRun
from nestvec.tools.tuning.search import GPU_BUDGETS

# The precisions that tuning compares, on CPUs and on a GPU.
TUNED_PRECISIONS: Final = (
    (Precision.FP32, Precision.INT8, Precision.INT8_ACCURATE, Precision.BF16),
    GPU_PRECISIONS,
)

# Settings that decide what the server does that is measured.
MEASURED_SETTINGS: Final = (
    *("model", "model_revision", "models_dir", "cache_dir", "offline", "precision"),
    *("calibration_file", "weight_storage", "max_batch_tokens", "worker_threads"),
    *("intra_op_threads", "lone_threads", "plain_attention_tokens", "front_threads"),
)
# Texts of 60 to 120 words, one a request under load as one after the other, so that both differ by the load alone.
MEASURED_WORDS: Final = (60, 120)
MEASURED_TEXTS: Final = 1


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


def calibrate_model(
    settings: Settings, texts: Path | None, pictures: Path | None = None
) -> OutputCalibration:
    """Set the ranges of a model's 8-bit vectors by the user's texts and pictures, or again by the bundled texts.

    Args:
        settings: Settings of the model.
        texts: File with a text on each line; None for the bundled ones.
        pictures: Folder of pictures, whose vectors the ranges are to hold too; None for none.

    Raises:
        ModelError: The model cannot be run, a file cannot be read, or the cache cannot be written.
    """
    package = prepare_model(settings)
    vectors = None
    if pictures is not None:
        paths = calibration_pictures(pictures)
        service = build_local_service(settings.for_offline_tools(), NullObserver())
        with (
            tqdm(unit="picture", total=len(paths)) as bar,
            ModelVectors(service, bar.update) as source,
        ):
            vectors = unit_picture_vectors(source, paths)
    return calibrate_outputs(package, texts, open_backend, vectors)


def measure_coefficients(settings: Settings) -> MachineCoefficients:
    """Measure what a model costs on this machine; takes three minutes, and the machine should be idle.

    Raises:
        ModelError: The model cannot be run, or its server does not start or answer.
        ProviderError: It runs on a GPU.
    """
    package = prepare_model(settings)
    if provider_for(settings, package) != "cpu":
        raise ProviderError(
            "coefficients are measured on CPUs only so far; give provider=cpu to plan for servers without a GPU"
        )
    keep_freed_memory()
    tuned = execution_settings_for(settings, package)
    pricing = _pricing(package)
    times = _batch_times(settings, package, tuned, pricing)
    count_tokens = partial(_count_tokens, package.open_tokenizer(package.spec.max_tokens))
    values = {name: getattr(settings, name) for name in MEASURED_SETTINGS}
    with own_server(values | {"provider": "cpu"}) as server:
        costs = measure_requests(server, count_tokens, MEASURED_WORDS, MEASURED_TEXTS)
        turns = measure_turns(
            server,
            count_tokens,
            MEASURED_WORDS,
            MEASURED_TEXTS,
            costs.requests_per_s,
            tuned.worker_threads,
        )
        server_bytes = server.peak_bytes()
    found = MachineCoefficients(
        format=FORMAT,
        measured_on=datetime.now(UTC).date().isoformat(),
        machine=f"{cpu_model()}; {usable_cpus()} CPUs",
        model=package.spec.name,
        precision=package.spec.precision,
        dimensions=package.spec.hidden_size,
        max_tokens=package.spec.max_tokens,
        cores=usable_cpus(),
        workers=tuned.worker_threads,
        lone_threads=tuned.lone_threads,
        max_batch_tokens=tuned.max_batch_tokens,
        largest_batch_tokens=times.largest_tokens,
        pricing=BatchPricing.of(pricing),
        batch=BatchTimes(**times.batch._asdict()),
        lone=BatchTimes(**times.lone._asdict()),
        slowdown=1.0,
        dispatch_s=0.0,
        idle_slowdown=0.0,
        noise=times.noise,
        front=FrontTimes(
            request_s=costs.request_s,
            text_s=costs.text_s,
            token_s=costs.token_s,
            wait_s=0.0,
            wake_s=0.0,
        ),
        server_bytes=server_bytes,
        start_s=server.start_s,
    )
    return _fitted(found, costs, turns)


def _fitted(
    found: MachineCoefficients, costs: RequestCosts, turns: LoadTurns
) -> MachineCoefficients:
    """Return the coefficients with what only a simulation tells: of a server that does what was measured."""
    as_measured = ReplicaOptions(
        found,
        found.max_batch_tokens,
        client_send_s=costs.client_s / 2,
        client_receive_s=costs.client_s / 2,
    )
    woken = fit_wake(as_measured, costs.lengths, CONNECTIONS, costs.busy_front_s)
    fitted = replace(as_measured, coefficients=woken)
    for _round in range(FITTING_ROUNDS):
        fitted = replace(fitted, coefficients=fit_busy(fitted, turns.busy_loads))
        waiting = fit_wait(fitted, costs.alone_lengths, costs.alone_s)
        fitted = replace(fitted, coefficients=waiting)
        fitted = replace(fitted, coefficients=fit_idle_slowdown(fitted, turns.open_loads))
    return fitted.coefficients


def _batch_times(
    settings: Settings, package: Package, tuned: ExecutionSettings, pricing: CostModel
) -> FittedTimes:
    """Time batches in this process, on the sessions that serve."""
    backend = open_for_serving(settings, package, tuned, None)
    try:
        return fit_batch_times(
            backend,
            pricing,
            package.pooler,
            max_tokens=package.spec.max_tokens,
            vocabulary_size=package.spec.vocabulary_size,
            clock=BenchClock(),
        )
    finally:
        backend.close()


def _pricing(package: Package) -> CostModel:
    """Return how the backend prices a package's batches."""
    graph = onnx.load(str(package.graph), load_external_data=False)
    kinds = attention_kinds({entry.key: entry.value for entry in graph.metadata_props})
    return CostModel.of_graph(package.layout, package.spec.hidden_size, kinds)


def _count_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """Return the tokens of texts, cut as the server cuts them."""
    encoded = tokenizer.encode_texts(texts, TokenizeOptions(Truncation.END))
    return [len(each.ids) for each in encoded]
