"""Settings to one served model: its backend opened, probed and warmed up, its core and its tokenizer."""

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from nestvec.assembly.execution import execution_settings_for
from nestvec.assembly.package import package_for
from nestvec.assembly.preparation import ShownPreparation
from nestvec.assembly.serving_backend import open_checked
from nestvec.backends.latency import LatencyBackend
from nestvec.config.memory_bounds import memory_bounds
from nestvec.config.settings import Settings
from nestvec.engine.backend import Backend
from nestvec.engine.core.batching.batching_policy import BatchingOptions
from nestvec.engine.core.batching.shared_cores import SharedCores
from nestvec.engine.core.engine_core import CoreOptions, EngineCore
from nestvec.engine.core.ports import Core, CrashGuard, NullCrashGuard
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.front.validation import check_profiles
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.models.served_model import AliasPreset, ServedModel, check_presets
from nestvec.engine.observer import Observer
from nestvec.engine.outputs.lexical import LexicalOutput
from nestvec.engine.pictures.naflex import with_patches
from nestvec.engine.pictures.warming import warm_up as warm_up_pictures
from nestvec.engine.text.preparation.text_form import TextForm
from nestvec.engine.types import OutputKind
from nestvec.engine.vectors.quantization import Rounding
from nestvec.errors import ProbeError
from nestvec.export.graph.token_table import read_token_table
from nestvec.model_store.artefacts.execution_settings import ExecutionSettings
from nestvec.model_store.artefacts.kept_reports import read_quality, read_reports
from nestvec.model_store.artefacts.maps import read_maps
from nestvec.model_store.artefacts.picture_build import check_picture_probes
from nestvec.model_store.artefacts.precision import check_shapes
from nestvec.model_store.artefacts.probes import (
    PROBE_TEXTS,
    TextRun,
    check_probes,
    run_texts,
    stated_bound,
)
from nestvec.model_store.artefacts.term_counts import read_term_table
from nestvec.model_store.package import Package
from nestvec.observability.logs import get_logger
from nestvec.system.malloc import keep_freed_memory

log = get_logger(__name__)

OPENAI_NAMES: Final = (
    "text-embedding-ada-002",
    "text-embedding-3-small",
    "text-embedding-3-large",
)


def open_model(
    settings: Settings,
    observer: Observer,
    task: str | None = None,
    crash_guard: CrashGuard | None = None,
    cores: SharedCores | None = None,
) -> ServedModel:
    """Load one model, check it by its probes and warm it up; blocks for as long as that takes.

    Args:
        settings: Settings of the model.
        observer: Told what happens to the model's calls and batches.
        task: The task whose adapter is merged in; None for none.
        crash_guard: Notes what runs, where that outlives the process.
        cores: The models of this process, whose workers share cores.

    Raises:
        ModelError: The model cannot be served.
    """
    started = time.monotonic()
    package = package_for(settings, task, runs_here=True)
    tuned = execution_settings_for(settings, package)
    name = settings.served_model_name or package.spec.name
    shown = ShownPreparation(name)
    backend, token_s = open_checked(
        settings,
        package,
        tuned,
        check=lambda backend: _probe_observed(package, backend, tuned, observer, name),
        shown=shown,
    )
    keep_freed_memory()
    core = EngineCore(
        model=name,
        backend=backend,
        options=_core_options(settings, package, tuned, token_s),
        observer=observer,
        crash_guard=crash_guard or NullCrashGuard(),
        cores=cores or SharedCores(),
    )
    model = served_model(settings, package, core)
    if model.spec.pictures is not None and crash_guard is None:
        # Where this is an engine process, pictures are decoded in others.
        warm_up_pictures()
    core.start()
    log.info(
        "model_ready",
        model=model.spec.name,
        provider=backend.info.provider,
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


def _probe_observed(
    package: Package, backend: Backend, tuned: ExecutionSettings, observer: Observer, name: str
) -> float:
    """Run the probes as `probe` does, and tell the observer how they came out."""
    try:
        token_s = probe(package, backend, tuned.worker_threads)
    except ProbeError:
        observer.probes_checked(name, passed=False)
        raise
    observer.probes_checked(name, passed=True)
    return token_s


def _core_options(
    settings: Settings, package: Package, tuned: ExecutionSettings, token_s: float
) -> CoreOptions:
    """Return how a core runs, whose probes took so many seconds a token."""
    batching = BatchingOptions(
        workers=tuned.worker_threads,
        max_batch_tokens=tuned.max_batch_tokens,
        lookahead_items=settings.lookahead_items,
        max_queue_tokens=memory_bounds(settings).queue_tokens,
        max_queue_wait_s=settings.max_queue_wait_s,
        max_batch_s=settings.max_batch_ms / 1000,
        first_token_s=token_s,
    )
    return CoreOptions(batching, package.pooler)


def alias_presets(settings: Settings) -> dict[str, AliasPreset]:
    """Return what each alias in the settings stands for, by its name."""
    return {
        name: AliasPreset(
            alias.prompt_name,
            alias.dimensions,
            alias.layers,
            alias.map,
            None if alias.output_dtype is None else OutputDtype(alias.output_dtype),
            None if alias.text is None else alias.text.form(),
        )
        for name, alias in settings.aliases.items()
    }


def served_model(settings: Settings, package: Package, core: Core) -> ServedModel:
    """Make a served model of a package and a core.

    Args:
        settings: Settings of the model.
        package: The model's package.
        core: Runs its items, in this process or in another.

    Raises:
        ModelError: The tokenizer cannot be read.
        ConfigError: An alias stands for something that the model does not have.
    """
    form = settings.text.form()
    spec = dataclasses.replace(
        package.spec,
        name=settings.served_model_name or package.spec.name,
        space=form.space_of(package.spec.space),
        pictures=with_patches(package.spec.pictures, settings.picture_patches),
    )
    lexical = lexical_output(spec, package)
    if lexical is not None:
        spec = dataclasses.replace(spec, kinds=(*spec.kinds, OutputKind.SPARSE))
    presets = alias_presets(settings)
    check_presets(presets, spec)
    original_name = (package.spec.name,) if settings.served_model_name else ()
    openai_names = OPENAI_NAMES if settings.openai_aliases else ()
    model = ServedModel(
        spec=spec,
        tokenizer=package.open_tokenizer(spec.max_tokens, form),
        core=core,
        aliases=(*original_name, *package.aliases, *settings.model_aliases, *openai_names),
        presets=presets,
        quantizer=dataclasses.replace(
            package.quantizer, rounding=Rounding(settings.quantize_compat)
        ),
        graph_bytes=package.graph_bytes,
        maps=read_maps(package.artefact, spec.space),
        quality=read_quality(package.artefact),
        reports=read_reports(package.artefact),
        token_table=partial(
            read_token_table,
            package.folder.path,
            package.folder.weights,
            package.folder.vocabulary_size,
        ),
        bound=stated_bound(package.build, core.backend_info.provider),
        lexical=lexical,
    )
    forms = {preset.text for preset in presets.values() if preset.text is not None}
    variants = {other: _in_form(model, other, package) for other in forms}
    model = dataclasses.replace(model, variants=variants)
    check_profiles(presets, model, allows_untrained=settings.allow_untrained_layers)
    return model


def lexical_output(spec: ModelSpec, package: Package) -> LexicalOutput | None:
    """Return what weighs terms by the counts beside an artefact; None where there are none, or a head gives weights."""
    if OutputKind.DENSE not in spec.kinds or OutputKind.SPARSE in spec.kinds:
        return None
    table = read_term_table(package.artefact, spec.vocabulary_size, spec.space)
    return None if table is None else LexicalOutput(table)


def _in_form(model: ServedModel, form: TextForm, package: Package) -> ServedModel:
    """Return a model as it takes texts in another form: the same core, another tokenizer and another space."""
    space = form.space_of(package.spec.space)
    return dataclasses.replace(
        model,
        # Terms were counted in the model's own form.
        spec=dataclasses.replace(model.spec, space=space, kinds=package.spec.kinds),
        lexical=None,
        tokenizer=package.open_tokenizer(model.spec.max_tokens, form),
        maps=read_maps(package.artefact, space),
    )


def probe(package: Package, backend: Backend, threads: int = 1) -> float:
    """Run the probe texts together and each alone, and compare them with the stored vectors; this warms it up too.

    Those together run as under load: in batches by length, each on one thread. Those alone run as on an idle server; a
    text that had a batch of its own is not run twice, unless there is a wide session for it. That one runs the same
    graph from the same file, and each text costs it a read of all weights: it runs the long text and some short ones.

    The long text takes seconds on one thread. Where the artefact was made just now, its stored vector was made so, by
    the same graph: it is left to the wide session then.

    Args:
        package: The model.
        backend: What will serve it.
        threads: How many batches run at once on a CPU.

    Returns:
        Seconds that a token took in a batch of short texts.

    Raises:
        ProbeError: A vector differs.
        QualityError: A coarser precision is out of its bounds.
    """
    # Probes were made with the model's own length, whatever the operator allows callers.
    tokenizer = package.open_tokenizer(package.native_max_tokens)
    pooler, provider = package.probe_pooler, backend.info.provider
    threads = threads if provider == "cpu" else 1
    has_wide = isinstance(backend, LatencyBackend)
    vectors = package.probes[: len(PROBE_TEXTS)].copy()
    check_shapes(vectors, package.probes)

    def run(numbers: list[int], threads: int, *, alone: bool) -> TextRun:
        """Run some of the texts, and compare them."""
        texts = [PROBE_TEXTS[number] for number in numbers]
        results = run_texts(backend, tokenizer, pooler, texts, alone=alone, threads=threads)
        check_shapes(results.vectors, vectors[numbers])
        vectors[numbers] = results.vectors
        check_probes(vectors, package.probes, provider, package.build)
        return results

    all_numbers = list(range(len(PROBE_TEXTS)))
    shared = all_numbers[:-1] if has_wide and package.is_new else all_numbers
    together = run(shared, threads, alone=False)
    if has_wide:
        run(_sample(together.tokens[: len(PROBE_TEXTS) - 1]), 1, alone=True)
    elif rest := [n for n, was_alone in enumerate(together.alone) if not was_alone]:
        run(rest, threads, alone=True)
    if package.spec.pictures is not None:
        tower = package.spec.pictures
        check_picture_probes(package.artefact, backend, tower, package.probe_pooler)
    return together.token_s


def _sample(tokens: Sequence[int]) -> list[int]:
    """Return the probes for a wide session: of the short ones' lengths the least, a middling and the most; the long."""
    order = sorted(range(len(tokens)), key=lambda number: tokens[number])
    return [*sorted({order[0], order[len(order) // 2], order[-1]}), len(tokens)]
