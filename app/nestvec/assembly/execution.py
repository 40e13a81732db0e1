"""How a package is to be run on this machine: as set, else as tuned here, else by defaults."""

import contextlib
import dataclasses
from typing import Final

from nestvec.backends.open import chosen_provider, gpus
from nestvec.config.settings import Settings
from nestvec.engine.backend import BackendOptions, DeviceOptions
from nestvec.engine.types import Layout
from nestvec.export.architectures import GRAPH_VERSION, STATIC_TYPE
from nestvec.model_store.artefacts.execution_settings import (
    Tuned,
    built_in,
    built_in_for_gpu,
    read_tuned,
)
from nestvec.model_store.artefacts.precision import BuildOptions, Precision
from nestvec.model_store.package import Package
from nestvec.system.cpus import cpu_model, l2_cache_bytes, usable_cpus


def backend_options(package: Package, tuned: Tuned, *, provider: str = "cpu") -> BackendOptions:
    """How to open a package's graph with what tuning found."""
    return BackendOptions(
        provider=provider,
        intra_op_threads=tuned.intra_op_threads,
        parallel_runs=tuned.worker_threads + 1,  # the express worker too
        computes_bf16=package.build.precision is Precision.BF16,
        plain_attention_tokens=tuned.plain_attention_tokens,
    )


# fp16 unless its range is too small for the model; fp32 is exact and many times slower.
GPU_PRECISIONS: Final = (Precision.FP16, Precision.BF16, Precision.FP32)


def build_options(settings: Settings, provider: str) -> list[BuildOptions]:
    """Which artefacts the settings ask for: the first that this machine can run.

    Args:
        settings: Model and precision.
        provider: Where it is to run.
    """
    asked = settings.precision
    on_cpu = BuildOptions(
        precision=Precision.FP32 if asked == "auto" else Precision(asked),
        calibration=settings.calibration_file,
        halves_weights=settings.weight_storage == "fp16",
    )
    if provider == "cpu":
        return [on_cpu]
    wanted = GPU_PRECISIONS if asked == "auto" else (Precision(asked),)
    here = machine(gpus()[settings.device_id].name)
    found = [BuildOptions(one, is_for_device=True, machine=here) for one in wanted]
    # What has no packed graph is run as on CPU: padded, or with a mask.
    return [*found, on_cpu] if on_cpu.precision is Precision.FP32 else found


def machine(gpu: str = "") -> str:
    """What tuning holds for: CPU or GPU, usable cores, and versions."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in ("onnxruntime", "onnxruntime-gpu", "openvino"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    cpus = usable_cpus()
    return f"{gpu or cpu_model()}; {cpus} CPUs; graph {GRAPH_VERSION}; {', '.join(found)}"


def execution(settings: Settings, package: Package) -> Tuned:
    """How to run: as set, else as tuned on such a machine, else as built in."""
    provider = provider_of(settings, package)
    start = start_of(settings, package, provider)
    tuned = read_tuned(package.artefact, machine_of(settings, package)) or start
    plain = settings.plain_attention_tokens
    return Tuned(
        max_batch_tokens=settings.max_batch_tokens or tuned.max_batch_tokens,
        worker_threads=settings.worker_threads or tuned.worker_threads,
        intra_op_threads=settings.intra_op_threads or tuned.intra_op_threads,
        plain_attention_tokens=tuned.plain_attention_tokens if plain is None else plain,
        lone_threads=settings.lone_threads or tuned.lone_threads,
    )


def provider_of(settings: Settings, package: Package) -> str:
    """Where a package runs: a static model has nothing for a GPU to do."""
    if package.spec.architecture == STATIC_TYPE:
        return "cpu"
    return chosen_provider(settings.provider, settings.device_id)


def machine_of(settings: Settings, package: Package) -> str:
    """The machine that a package runs on."""
    is_gpu = provider_of(settings, package) == "cuda"
    return machine(gpus()[settings.device_id].name if is_gpu else "")


def start_of(settings: Settings, package: Package, provider: str) -> Tuned:
    """How to run where nothing was tuned."""
    if provider == "cuda":
        return built_in_for_gpu(package.spec.hidden_size)
    return built_in(
        usable_cpus(),
        l2_cache_bytes(),
        package.graph_bytes,
        has_layers=package.spec.architecture != STATIC_TYPE,
    )


def options_of(settings: Settings, package: Package, tuned: Tuned) -> BackendOptions:
    """How to open a package as it is to run."""
    provider = provider_of(settings, package)
    device = None
    # Padded graphs are others': they are filled up to few sizes, the small ones captured.
    is_padded = provider == "cuda" and package.layout is Layout.PADDED
    if package.build.is_for_device or is_padded:
        device = DeviceOptions(
            package.native_max_tokens,
            max(settings.max_batch_tokens or tuned.max_batch_tokens, package.spec.max_tokens),
            captured_tokens=settings.gpu_captured_tokens,
        )
    return dataclasses.replace(
        backend_options(package, tuned, provider=provider),
        device_id=settings.device_id,
        memory_share=settings.gpu_memory_utilization,
        device=device,
    )
