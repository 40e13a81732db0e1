"""From a model's name to everything that serving needs: files fetched and read, artefact built if need be."""

import dataclasses
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nestvec.engine.backend import Backend, BackendFactory, BackendOptions
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.text.preparation.text_form import PLAIN_TEXTS, TextForm
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import FloatArray, Layout, OutputKind
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.errors import (
    ArtefactError,
    BackendMemoryError,
    FormatError,
    ModelMemoryError,
    UnsuitedError,
)
from nestvec.export.architectures import STATIC_TYPE, export_padded_graph
from nestvec.export.layers.attention import AttentionOps
from nestvec.export.two_towers.picture_graph import PICTURE_GRAPH
from nestvec.model_store.artefacts.backend_cache import cached_backends
from nestvec.model_store.artefacts.build import ATTENTION_OPS, ArtefactBuilder
from nestvec.model_store.artefacts.cache import (
    DEVICE_FORMAT,
    FORMAT,
    Artefact,
    find_artefact,
    find_refusal,
    make_artefact,
    record_refusal,
)
from nestvec.model_store.artefacts.fingerprint import HashCache, space_fingerprint
from nestvec.model_store.artefacts.made_of import note_use
from nestvec.model_store.artefacts.output_quantization import (
    BUNDLED_SOURCE,
    output_calibration_texts,
    read_quantizer,
    write_quantizer,
)
from nestvec.model_store.artefacts.picture_build import check_prefix_precision
from nestvec.model_store.artefacts.precision import BuildOptions
from nestvec.model_store.artefacts.probes import pooler_of_probes
from nestvec.model_store.folder.model_folder import GRAPH_FILE, ModelFolder, read_model_folder
from nestvec.model_store.picture_pairs import with_pictures
from nestvec.model_store.preparation import PreparationListener, SilentListener
from nestvec.model_store.sources.adapters import merged_folder
from nestvec.model_store.sources.fetch import FetchedModel, SourceOptions, fetch
from nestvec.model_store.two_towers.label_scale import read_label_scale

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Package:
    """A model whose files and artefact lie on this disk, ready to be opened.

    Attributes:
        spec: What serving needs to know of it.
        folder: Its files and what they say.
        artefact: Folder of what was built for it.
        build: Precision and storage of the artefact.
        probes: Vectors of the probe texts by the fp32 graph on the CPU, [P, D], float32.
        graph_bytes: Size of the graph and its weights on disk.
        quantizer: Ranges for 8-bit vectors.
        pooler: Makes the model's outputs from the graph's token states.
        aliases: Further names, from its card.
        is_new: Whether the artefact was built just now.
    """

    spec: ModelSpec
    folder: ModelFolder
    artefact: Path
    build: BuildOptions
    probes: FloatArray
    graph_bytes: int
    quantizer: Quantizer
    pooler: Pooler
    aliases: tuple[str, ...] = ()
    is_new: bool = False

    @property
    def graph(self) -> Path:
        """Path of the ONNX file to open."""
        return self.folder.graph(self.artefact)

    @property
    def picture_graph(self) -> Path | None:
        """Path of the ONNX file of pictures; None where the model takes texts only."""
        return None if self.folder.pictures is None else self.artefact / PICTURE_GRAPH

    @property
    def layout(self) -> Layout:
        """Layout of the inputs that the graph takes."""
        return self.folder.layout

    @property
    def native_max_tokens(self) -> int:
        """Most tokens that the model itself takes, whatever `spec.max_tokens` allows."""
        return self.folder.max_tokens

    @property
    def has_attentions(self) -> bool:
        """Whether the graph has more than one attention for a backend to choose from."""
        return (
            self.folder.onnx_file is None
            and not self.build.is_for_device
            and ATTENTION_OPS[self.build.precision] is AttentionOps.BY_LENGTH
        )

    @property
    def probe_pooler(self) -> Pooler:
        """The pooler that `probes` were made with."""
        return pooler_of_probes(self.spec.kinds, self.pooler)

    def open_tokenizer(self, max_tokens: int, form: TextForm = PLAIN_TEXTS) -> Tokenizer:
        """Open the model's tokenizer, which cuts an input at `max_tokens` and brings texts into a form first.

        Raises:
            FormatError: It cannot be read.
        """
        return self.folder.open_tokenizer(max_tokens, form)


def load_package(  # noqa: PLR0913 - what a caller may say, each with a default
    model: str,
    options: SourceOptions,
    open_backend: BackendFactory,
    *,
    build: BuildOptions | None = None,
    max_tokens: int | None = None,
    refresh: bool = False,
    head_provider: str = "cpu",
    listener: PreparationListener | None = None,
) -> Package:
    """Fetch a model and build its artefact unless the cache has it.

    Args:
        model: A card, a folder or a Hub id; see `sources.fetch`.
        options: Cache, cards, adapter, offline.
        open_backend: Opens a graph, to compute the probes of a new artefact.
        build: Precision and storage; fp32 by default.
        max_tokens: Serve at most this many tokens an input; None for as many as the model takes.
        refresh: Ask the source again.
        head_provider: Provider that runs the head's own graph.
        listener: Told which step is at; None for nobody to tell.

    Raises:
        UnsuitedError: The model cannot be had in this precision, on this machine.
        ModelError: Anything wrong with source, files, export or cache.
    """
    build = build or BuildOptions()
    listener = listener or SilentListener()
    fetched = _fetch(model, options, listener, refresh=refresh)
    folder = _with_pictures(_read_folder(fetched, options), fetched, options, listener, refresh)
    check_prefix_precision(folder, build.precision)
    space = space_fingerprint(folder, HashCache(options.cache_dir / "hashes.json"), build)
    with cached_backends(open_backend) as backends:
        builder = ArtefactBuilder(folder, fetched.card.published, build, backends, listener)
        artefact, is_new = _find_or_build(fetched.name, builder, options.cache_dir, space)
        quantizer = _load_quantizer(artefact.folder, builder)
    note_use(
        artefact.folder, model=fetched.name, files=fetched.folder, precision=str(build.precision)
    )
    if max_tokens is not None and max_tokens > folder.max_tokens:
        raise FormatError(
            f"max_input_tokens is {max_tokens}, but {fetched.name} takes at most {folder.max_tokens}"
        )
    spec = _describe(fetched, folder, artefact, build, space)
    return Package(
        spec=dataclasses.replace(spec, max_tokens=max_tokens or folder.max_tokens),
        folder=folder,
        artefact=artefact.folder,
        build=build,
        probes=artefact.probes,
        graph_bytes=_graph_bytes(folder.graph(artefact.folder)),
        quantizer=quantizer,
        pooler=dataclasses.replace(
            folder.head.pooler(artefact.folder, partial(_open_head, open_backend, head_provider)),
            gives_zeros=folder.architecture == STATIC_TYPE,
        ),
        aliases=fetched.card.aliases,
        is_new=is_new,
    )


def _fetch(
    model: str, options: SourceOptions, listener: PreparationListener, *, refresh: bool
) -> FetchedModel:
    """Fetch a model's files, with the adapter of the options merged in."""
    fetched = fetch(model, options, refresh=refresh, listener=listener)
    if options.adapter is None:
        return fetched
    merged = merged_folder(fetched.folder, options.adapter, options.cache_dir)
    return dataclasses.replace(fetched, folder=merged)


def _read_folder(fetched: FetchedModel, options: SourceOptions) -> ModelFolder:
    """Read what the files say, with what the card adds, and check what the card states as facts."""
    card = fetched.card
    folder = read_model_folder(
        fetched.folder, card.overrides, card.config, reads_pickles=options.reads_pickles
    )
    card.check_facts(dimensions=folder.head.dimensions, pooling=folder.head.pooling)
    return folder


def _with_pictures(
    folder: ModelFolder,
    fetched: FetchedModel,
    options: SourceOptions,
    listener: PreparationListener,
    refresh: bool,  # noqa: FBT001 - passed on
) -> ModelFolder:
    """Fetch the model of pictures that the options name, and put it beside the model of texts."""
    if not options.picture_model:
        return folder
    pictures = fetch(
        options.picture_model, options.for_pictures(), refresh=refresh, listener=listener
    )
    norms_texts = bool(fetched.card.overrides.get("layer_norm_beside_pictures"))
    return with_pictures(
        folder, pictures.folder, norms_texts=norms_texts, reads_pickles=options.reads_pickles
    )


def _find_or_build(
    name: str, builder: ArtefactBuilder, cache_dir: Path, space: str
) -> tuple[Artefact, bool]:
    """Return the artefact and whether it was built just now.

    Raises:
        ModelMemoryError: There is no memory to try it just now.
        UnsuitedError: It cannot be built for this machine, now or at an earlier start.
    """
    build = builder.build
    key = build.key(space)
    format_number = DEVICE_FORMAT if build.is_for_device else FORMAT
    artefact = find_artefact(cache_dir, key, format_number)
    if artefact is not None:
        return artefact, False
    if reason := find_refusal(cache_dir, key, build.machine):
        raise UnsuitedError(reason)
    log.info("exporting %s in %s, once", name, build.precision)
    try:
        return make_artefact(cache_dir, key, builder.build_artefact, format_number), True
    except UnsuitedError as error:
        record_refusal(cache_dir, key, build.machine, error.message)
        raise
    except BackendMemoryError as error:
        raise ModelMemoryError(
            "no memory to try the graph: unload models, or see what else uses the GPU"
        ) from error


def _describe(
    fetched: FetchedModel, folder: ModelFolder, artefact: Artefact, build: BuildOptions, space: str
) -> ModelSpec:
    """Put together what serving needs to know, from the files, the card and the artefact."""
    card, head = fetched.card, folder.head
    trained = {*card.trained_dimensions, *head.trained_dimensions, head.dimensions}
    return ModelSpec(
        name=fetched.name,
        hidden_size=head.dimensions,
        max_tokens=folder.max_tokens,
        vocabulary_size=folder.vocabulary_size,
        pooling=head.pooling,
        is_normalized=folder.is_normalized,
        prompts=folder.prompts,
        default_prompt=folder.default_prompt,
        pools_prompt=folder.pools_prompt,
        trained_dimensions=tuple(sorted(trained, reverse=True)),
        space=space,
        precision=build.precision,
        created_s=artefact.created_s,
        source=fetched.origin,
        license=card.license,
        architecture=folder.architecture,
        kinds=head.kinds,
        labels=head.labels,
        activation=head.activation,
        instruct=folder.instruct,
        echo=folder.echo,
        late_interaction=head.late_interaction,
        token_pooling=head.token_pooling,
        trained_layers=card.trained_layers,
        languages=card.languages,
        language_count=card.language_count,
        parameters=card.parameters,
        query_lookup=head.query_lookup,
        pair=folder.pair,
        pictures=None if folder.pictures is None else folder.pictures.tower,
        label_scale=None if folder.pictures is None else read_label_scale(folder.path),
        chat=folder.chat,
    )


def _open_head(
    open_backend: BackendFactory, provider: str, path: Path, layout: Layout, options: BackendOptions
) -> Backend:
    """Open a head's graph on a provider."""
    return open_backend(path, layout, dataclasses.replace(options, provider=provider))


def _load_quantizer(artefact: Path, builder: ArtefactBuilder) -> Quantizer:
    """Return the quantizer kept beside the artefact, else calibrate one on the bundled texts, once.

    A model whose texts have no vector gets an empty one.
    """
    head = builder.folder.head
    if OutputKind.DENSE not in head.kinds:
        return Quantizer()
    if head.own_code_step is not None:
        return Quantizer(source="model", step=head.own_code_step)
    quantizer = read_quantizer(artefact)
    if quantizer is None:
        log.info("calibrating 8-bit vectors, once")
        texts = output_calibration_texts(head.dimensions)
        quantizer = Quantizer(builder.vectors(artefact, texts), BUNDLED_SOURCE)
        try:
            write_quantizer(artefact, quantizer)
        except ArtefactError as error:  # a cache that was filled elsewhere and is read-only here
            log.warning("calibration is not kept: %s", error.message)
    return quantizer


def _graph_bytes(graph: Path) -> int:
    """Return the size of a graph and its weights, which lie in one folder."""
    return sum(file.stat().st_size for file in graph.parent.glob("*") if file.is_file())


def write_padded_graph(package: Package, folder: Path) -> None:
    """Write a model's graph for other programs: standard ONNX with the usual padded inputs.

    Raises:
        FormatError: The model is served from a graph of its own, which is what others can take as it is.
        OSError: The disk is full or read-only.
    """
    source = package.folder
    if package.layout is not Layout.PACKED:
        raise FormatError(f"{package.graph} has padded inputs already: take it as it is")
    if source.head.graph_head() is not None or source.head.takes_token_types:
        raise FormatError("only models that give a vector for each text can be written padded")
    export_padded_graph(source.path, source.config, folder / GRAPH_FILE)
