"""How a model runs on this machine: as the settings say, else as it was tuned here, else by defaults."""

from typing import Final

from nestvec.backends.providers import gpus, resolve_provider
from nestvec.config.settings import Settings
from nestvec.engine.backend import BackendOptions, DeviceOptions
from nestvec.engine.types import Layout
from nestvec.export.architectures import GRAPH_VERSION, STATIC_TYPE
from nestvec.model_store.artefacts.cache import DEVICE_FORMAT
from nestvec.model_store.artefacts.execution_settings import (
    ExecutionSettings,
    default_execution_settings,
    default_gpu_execution_settings,
    read_execution_settings,
)
from nestvec.model_store.artefacts.precision import BuildOptions, Precision
from nestvec.model_store.package import Package
from nestvec.system.cpus import cpu_model, l2_cache_bytes, usable_cpus
from nestvec.system.packages import RUNTIMES, installed_version

# fp16 unless its range is too small for the model; fp32 is exact and many times slower.
GPU_PRECISIONS: Final = (Precision.FP16, Precision.BF16, Precision.FP32)


def build_options(settings: Settings, provider: str) -> list[BuildOptions]:
    """Return the artefacts that the settings allow, in order; the first that suits the model and machine is taken.

    Args:
        settings: Settings of the model, with its precision.
        provider: Where it will run, "cpu" or "cuda".
    """
    requested = settings.precision
    on_cpu = BuildOptions(
        precision=Precision.FP32 if requested == "auto" else Precision(requested),
        calibration=settings.calibration_file,
        halves_weights=settings.weight_storage == "fp16",
        rounds_table=settings.weight_storage == "int8-table",
    )
    if provider == "cpu":
        return [on_cpu]
    precisions = GPU_PRECISIONS if requested == "auto" else (Precision(requested),)
    gpu = gpus()[settings.device_id]
    on_gpu = [
        BuildOptions(
            precision,
            is_for_device=True,
            machine=machine_key(gpu.name),
            capability=gpu.capability,
        )
        for precision in precisions
    ]
    # A model that has no packed graph runs as on the CPU: padded, or with a mask.
    return [*on_gpu, on_cpu] if on_cpu.precision is Precision.FP32 else on_gpu


def machine_key(gpu: str = "") -> str:
    """Return what tuned settings depend on: the CPU or GPU, the number of usable CPUs, and versions.

    Args:
        gpu: Name of the GPU; "" where the model runs on the CPU.
    """
    versions = [f"{name} {found}" for name in RUNTIMES if (found := installed_version(name))]
    cpus = usable_cpus()
    graph = f"{GRAPH_VERSION}.{DEVICE_FORMAT}" if gpu else str(GRAPH_VERSION)
    return f"{gpu or cpu_model()}; {cpus} CPUs; graph {graph}; {', '.join(versions)}"


def execution_settings_for(settings: Settings, package: Package) -> ExecutionSettings:
    """Return how to run a package: as set, else as tuned on such a machine, else by defaults."""
    provider = provider_for(settings, package)
    defaults = default_settings_for(package, provider)
    key = machine_key_for(settings, package)
    tuned = read_execution_settings(package.artefact, key) or defaults
    plain = settings.plain_attention_tokens
    return ExecutionSettings(
        max_batch_tokens=settings.max_batch_tokens or tuned.max_batch_tokens,
        worker_threads=settings.worker_threads or tuned.worker_threads,
        intra_op_threads=settings.intra_op_threads or tuned.intra_op_threads,
        plain_attention_tokens=tuned.plain_attention_tokens if plain is None else plain,
        lone_threads=settings.lone_threads or tuned.lone_threads,
    )


def provider_for(settings: Settings, package: Package) -> str:
    """Return where a package runs, "cpu" or "cuda"; a static model leaves nothing for a GPU to do."""
    if package.spec.architecture == STATIC_TYPE:
        return "cpu"
    return resolve_provider(settings.provider, settings.device_id)


def machine_key_for(settings: Settings, package: Package) -> str:
    """Return the key of the machine that a package runs on."""
    is_gpu = provider_for(settings, package) == "cuda"
    return machine_key(gpus()[settings.device_id].name if is_gpu else "")


def default_settings_for(package: Package, provider: str) -> ExecutionSettings:
    """Return how to run a package that was not tuned."""
    if provider == "cuda":
        return default_gpu_execution_settings(package.spec.hidden_size)
    return default_execution_settings(
        usable_cpus(),
        l2_cache_bytes(),
        package.graph_bytes,
        has_layers=package.spec.architecture != STATIC_TYPE,
        maps_weights=maps_weights(package),
    )


def maps_weights(package: Package) -> bool:
    """Whether ONNX Runtime maps a package's weights as they lie in the artefact, on the CPU.

    Weights in half floats are read into memory as floats, and other people's graphs may hold theirs in themselves.
    """
    return (
        package.folder.onnx_file is None
        and package.spec.architecture != STATIC_TYPE
        and package.build.precision is not Precision.BF16
        and not package.build.halves_weights
        and not package.build.is_for_device
    )


def backend_options_for(
    settings: Settings, package: Package, tuned: ExecutionSettings
) -> BackendOptions:
    """Return how to open a package's graph with some execution settings."""
    provider = provider_for(settings, package)
    device = None
    # Padded graphs are those that others made: batches are rounded up to few sizes, and the small ones captured.
    is_padded = provider == "cuda" and package.layout is Layout.PADDED
    if package.build.is_for_device or is_padded:
        device = DeviceOptions(
            package.native_max_tokens,
            max(settings.max_batch_tokens or tuned.max_batch_tokens, package.spec.max_tokens),
            captured_tokens=settings.gpu_captured_tokens,
        )
    return BackendOptions(
        provider=provider,
        device_id=settings.device_id,
        intra_op_threads=tuned.intra_op_threads,
        # The priority worker runs batches too.
        parallel_runs=tuned.worker_threads + 1,
        computes_bf16=package.build.precision is Precision.BF16,
        plain_attention_tokens=tuned.plain_attention_tokens,
        memory_share=settings.gpu_memory_utilization,
        device=device,
    )
