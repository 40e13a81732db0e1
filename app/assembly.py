"""Settings to engine objects: which model, fetched and opened how, and the service over all of them."""

import contextlib
import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from app.devices import chosen_provider, gpus, open_on_gpu
from app.engine.backend import Backend, BackendOptions, DeviceOptions
from app.engine.core import CoreOptions, EngineCore
from app.engine.lone import LoneBackend
from app.engine.ports import Core, NullRecorder, Recorder
from app.engine.quantise import Rounding
from app.engine.registry import Pin, ServedModel, check_pins
from app.engine.types import Layout, Observer
from app.errors import ModelError, UnsuitedError
from app.export.architectures import GRAPH_VERSION, STATIC_TYPE
from app.hardware import cpu_model, l2_cache_bytes, usable_cpus
from app.logs import get_logger
from app.memory import keep_freed_memory
from app.packages.calibrate import Calibrated, calibrate
from app.packages.maps import read_maps
from app.packages.measured import read_quality
from app.packages.precision import BuildOptions, Precision
from app.packages.prepare import Package, prepare
from app.packages.probes import PROBE_TEXTS, check_probes, compute_vectors
from app.packages.sources import SourceOptions
from app.packages.tuned import Tuned, built_in, built_in_for_gpu, read_tuned
from app.settings import Settings
from app.tuning.report import TuningReport
from app.tuning.run import TuningRun, backend_options
from app.tuning.search import GPU_BUDGETS

log = get_logger(__name__)

OPENAI_NAMES: Final = (
    "text-embedding-ada-002",
    "text-embedding-3-small",
    "text-embedding-3-large",
)
PACKAGE_CARDS: Final = Path(__file__).parent / "cards"  # in an installed wheel
CHECKOUT_CARDS: Final = Path(__file__).parent.parent / "models"
# fp16 unless its range is too small for the model; fp32 is exact and many times slower.
GPU_PRECISIONS: Final = (Precision.FP16, Precision.BF16, Precision.FP32)
# What tuning compares, on CPU and on a GPU.
TUNED_PRECISIONS: Final = (
    (Precision.FP32, Precision.INT8, Precision.INT8_ACCURATE, Precision.BF16),
    GPU_PRECISIONS,
)


def source_options(settings: Settings) -> SourceOptions:
    """Where models come from."""
    own = (settings.models_dir,) if settings.models_dir else ()
    return SourceOptions(
        cache_dir=settings.cache_dir,
        card_dirs=(*own, PACKAGE_CARDS, CHECKOUT_CARDS),
        revision=settings.model_revision,
        is_offline=settings.offline,
    )


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


def open_backend(path: Path, layout: Layout, options: BackendOptions) -> Backend:
    """The one place that names backends; imported late, as `--help` has no use for them."""
    if options.provider == "cuda":
        return open_on_gpu(path, layout, options)
    if options.computes_bf16:
        from app.engine.openvino_backend import OpenVinoBackend

        return OpenVinoBackend(path, layout, options)
    from app.engine.onnx_backend import OnnxBackend

    return OnnxBackend(path, layout, options)


def prepare_model(
    settings: Settings, *, refresh: bool = False, task: str | None = None, runs_here: bool = False
) -> Package:
    """Fetch and export the model of the settings, with the adapter of a task merged in.

    Args:
        settings: Of the model.
        refresh: Ask the source again.
        task: Whose adapter is merged in; None for none.
        runs_here: Whether this process runs it: what stands behind the graph is then opened beside it.

    Raises:
        ModelError: Anything wrong with it.
    """
    adapter = None if task is None else settings.adapters[task].expanduser()
    provider = chosen_provider(settings.provider, settings.device_id)
    *wanted, last = build_options(settings, provider)
    make = partial(
        prepare,
        settings.model,
        dataclasses.replace(source_options(settings), adapter=adapter),
        partial(_open_as_set, settings),
        max_tokens=settings.max_input_tokens,
        refresh=refresh,
        heads_on=provider if runs_here else "cpu",
    )
    for build in wanted:
        try:
            return make(wanted=build)
        except UnsuitedError as error:
            log.info("precision_unsuited", precision=build.precision, reason=error.message)
    return make(wanted=last)


def _open_as_set(
    settings: Settings, path: Path, layout: Layout, options: BackendOptions
) -> Backend:
    """Open a graph on the GPU of the settings, if it is for one."""
    own = dataclasses.replace(
        options, device_id=settings.device_id, memory_share=settings.gpu_memory_utilization
    )
    return open_backend(path, layout, own)


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


def open_tuned(settings: Settings, package: Package, tuned: Tuned) -> Backend:
    """Open a package as it is to run: with a second, wide session for lone texts where that is wanted.

    Raises:
        ModelError: The graph cannot be opened.
    """
    options = options_of(settings, package, tuned)
    backend = open_backend(package.graph, package.layout, options)
    if backend.provider != "cpu" or tuned.lone_threads <= tuned.intra_op_threads:
        return backend
    wide = dataclasses.replace(
        options, intra_op_threads=tuned.lone_threads, parallel_runs=1, spins=True
    )
    return LoneBackend(backend, open_backend(package.graph, package.layout, wide))


def tune_model(settings: Settings, *, limit_s: float, compares: bool) -> TuningReport:
    """Find how the model of the settings runs fastest on this machine, and keep it.

    Args:
        settings: Model and precision.
        limit_s: Time for the search.
        compares: Whether to export and time the other precisions too.

    Raises:
        ModelError: The model cannot be run, or the cache not be written.
    """
    package = prepare_model(settings)
    keep_freed_memory()
    is_gpu = provider_of(settings, package) == "cuda"
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
        machine=machine_of(settings, package),
        start=start_of(settings, package, "cuda" if is_gpu else "cpu"),
        options_of=lambda one, tuned: options_of(opened, one, tuned),
        cpus=usable_cpus(),
        limit_s=limit_s,
        clock=time.perf_counter,
        is_gpu=is_gpu,
    )
    return run.run(TUNED_PRECISIONS[is_gpu] if compares else [])


def calibrate_model(settings: Settings, texts: Path | None) -> Calibrated:
    """Set the ranges of a model's 8-bit vectors by texts of the user's own, or anew by the bundled ones.

    Raises:
        ModelError: The model cannot be run, the file cannot be read, or the cache not be written.
    """
    package = prepare_model(settings)
    return calibrate(package, texts, open_backend)


def open_model(
    settings: Settings,
    observer: Observer,
    task: str | None = None,
    recorder: Recorder | None = None,
) -> ServedModel:
    """Load, probe and warm one model, or it with the adapter of a task; blocks for as long as that takes.

    Args:
        settings: Of the model.
        observer: Told what happens to it.
        task: Whose adapter is merged in; None for none.
        recorder: Notes what runs, where that outlives the process.

    Raises:
        ModelError: The model cannot be served.
    """
    started = time.monotonic()
    package = package_of(settings, task, runs_here=True)
    tuned = execution(settings, package)
    backend = open_tuned(settings, package, tuned)
    try:
        probe(package, backend)
    except ModelError:
        backend.close()
        raise
    keep_freed_memory()
    core = EngineCore(
        model=settings.served_model_name or package.spec.name,
        backend=backend,
        options=CoreOptions(
            workers=tuned.worker_threads,
            max_batch_tokens=tuned.max_batch_tokens,
            lookahead_items=settings.lookahead_items,
            max_queue_tokens=settings.max_queue_tokens,
            max_batch_s=settings.max_batch_ms / 1000,
            outputs=package.outputs,
        ),
        observer=observer,
        recorder=recorder or NullRecorder(),
    )
    model = served_model(settings, package, core)
    core.start()
    log.info(
        "model_ready",
        model=model.spec.name,
        provider=backend.provider,
        space=model.spec.space,
        dimensions=model.spec.hidden_size,
        max_tokens=model.spec.max_tokens,
        precision=model.spec.precision,
        max_batch_tokens=tuned.max_batch_tokens,
        worker_threads=tuned.worker_threads,
        lone_threads=tuned.lone_threads,
        exported=package.is_new,
        took_s=round(time.monotonic() - started, 2),
    )
    return model


def pins_of(settings: Settings) -> dict[str, Pin]:
    """What the settings' aliases stand for."""
    return {name: Pin(p.prompt_name, p.dimensions) for name, p in settings.aliases.items()}


def package_of(settings: Settings, task: str | None, *, runs_here: bool = False) -> Package:
    """A model's package, or it with the adapter of a task, whose other names are the base's.

    Raises:
        ModelError: Anything wrong with it.
    """
    package = prepare_model(settings, task=task, runs_here=runs_here)
    if task is None:
        return package
    name = settings.served_model_name or package.spec.name
    return dataclasses.replace(
        package, spec=dataclasses.replace(package.spec, name=name), aliases=()
    )


def served_model(settings: Settings, package: Package, core: Core) -> ServedModel:
    """Put spec, tokenizer and a core together.

    Raises:
        ModelError: The tokenizer cannot be read.
        ConfigError: A name stands for what the model does not have.
    """
    spec = dataclasses.replace(package.spec, name=settings.served_model_name or package.spec.name)
    pins = pins_of(settings)
    check_pins(pins, spec)
    own = (package.spec.name,) if settings.served_model_name else ()
    names = OPENAI_NAMES if settings.openai_aliases else ()
    return ServedModel(
        spec=spec,
        tokenizer=package.open_tokenizer(spec.max_tokens),
        core=core,
        aliases=(*own, *package.aliases, *settings.model_aliases, *names),
        pins=pins,
        quantiser=dataclasses.replace(
            package.quantiser, rounding=Rounding(settings.quantize_compat)
        ),
        graph_bytes=package.graph_bytes,
        maps=read_maps(package.artefact, spec.space),
        quality=read_quality(package.artefact),
    )


def probe(package: Package, backend: Backend) -> None:
    """Compare the probes, together and each alone, with the stored vectors; warms the session up on the way.

    Raises:
        ProbeError: They differ.
    """
    # Probes were made with the model's own length, whatever the operator allows callers.
    tokenizer = package.open_tokenizer(package.native_max_tokens)
    outputs = package.probe_outputs
    together = compute_vectors(backend, tokenizer, outputs, PROBE_TEXTS)
    check_probes(together, package.probes, backend.provider, package.build)
    alone = [compute_vectors(backend, tokenizer, outputs, [text]) for text in PROBE_TEXTS]
    check_probes(np.concatenate(alone), package.probes, backend.provider, package.build)
