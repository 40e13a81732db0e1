"""From a model's name to everything that serving needs: fetch, derive, export if need be."""

import dataclasses
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nestvec.engine.backend import Backend, BackendFactory, BackendOptions
from nestvec.engine.models.served_model import ModelSpec
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import FloatArray, Layout, OutputKind
from nestvec.engine.vectors.pooler import Outputs
from nestvec.engine.vectors.quantization import Quantiser
from nestvec.errors import ArtefactError, FormatError, UnsuitedError
from nestvec.export.architectures import export_padded_graph
from nestvec.export.layers.attention import AttentionRoutes
from nestvec.model_store.artefacts.build import ROUTES, Builder, probed
from nestvec.model_store.artefacts.cache import (
    Artefact,
    find_artefact,
    make_artefact,
    note_refusal,
    refusal_of,
)
from nestvec.model_store.artefacts.fingerprint import HashCache, space_fingerprint
from nestvec.model_store.artefacts.output_quantization import (
    BUNDLED_SOURCE,
    bundled_texts,
    read_quantiser,
    write_quantiser,
)
from nestvec.model_store.artefacts.precision import BuildOptions
from nestvec.model_store.folder.derive import GRAPH, Derived, derive
from nestvec.model_store.sources.adapters import merged_folder
from nestvec.model_store.sources.card import Card, Published
from nestvec.model_store.sources.fetch import Fetched, SourceOptions, fetch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Package:
    """A model that is ready to be opened.

    Attributes:
        spec: What serving needs to know.
        artefact: Folder of what was made for it.
        graph: The ONNX file to open.
        layout: Which inputs it takes.
        tokenizer: Path of tokenizer.json.
        derived: The model's folder, understood.
        probes: Stored vectors of the probe texts, (P, H), float32.
        native_max_tokens: What the model takes, whatever `spec.max_tokens` allows.
        build: Precision and storage of the artefact.
        graph_bytes: Size of the graph and its weights on disk.
        quantiser: Ranges for 8-bit vectors.
        outputs: What is made of the graph's token states.
        has_attentions: Whether the graph has more than one attention for a backend to choose from.
        is_new: Whether it was exported just now.
    """

    spec: ModelSpec
    artefact: Path
    graph: Path
    layout: Layout
    tokenizer: Path
    derived: Derived
    probes: FloatArray
    native_max_tokens: int
    build: BuildOptions
    graph_bytes: int
    quantiser: Quantiser
    outputs: Outputs
    has_attentions: bool = False
    aliases: tuple[str, ...] = ()
    is_new: bool = False

    @property
    def probe_outputs(self) -> Outputs:
        """What `probes` were made by."""
        return probed(self.spec.kinds, self.outputs)

    def open_tokenizer(self, max_tokens: int) -> Tokenizer:
        """The model's, cutting at so many tokens.

        Raises:
            FormatError: It cannot be read.
        """
        return Tokenizer(
            self.tokenizer,
            max_tokens=max_tokens,
            vocabulary_size=self.spec.vocabulary_size,
            adds_special=self.derived.adds_special_tokens,
            drops_unknown=self.derived.drops_unknown,
        )


def prepare(  # noqa: PLR0913 - what a caller may say, each with a default
    model: str,
    options: SourceOptions,
    open_backend: BackendFactory,
    *,
    wanted: BuildOptions | None = None,
    max_tokens: int | None = None,
    refresh: bool = False,
    heads_on: str = "cpu",
) -> Package:
    """Fetch a model and make its artefact unless the cache has it.

    Args:
        model: See `sources.fetch`.
        options: Cache, cards, offline.
        open_backend: Opens a graph, to compute the probes of a new artefact.
        wanted: Precision and storage; fp32 by default.
        max_tokens: Serve fewer tokens an input than the model takes.
        refresh: Ask the source again.
        heads_on: Provider of what stands behind the graph.

    Raises:
        UnsuitedError: The model cannot be had in this precision, on this machine.
        ModelError: Anything wrong with source, files, export or cache.
    """
    fetched = fetch(model, options, refresh=refresh)
    if options.adapter is not None:
        merged = merged_folder(fetched.folder, options.adapter, options.cache_dir)
        fetched = dataclasses.replace(fetched, folder=merged)
    overrides = fetched.card.overrides if fetched.card else {}
    derived = derive(fetched.folder, overrides, fetched.card.config if fetched.card else None)
    if fetched.card is not None:
        fetched.card.check_facts(dimensions=derived.head.dimensions, pooling=derived.pooling)
    build = wanted or BuildOptions()
    builder = Builder(derived, _published(fetched.card), build, open_backend)
    space = space_fingerprint(derived, HashCache(options.cache_dir / "hashes.json"), build)
    key = build.key(space)
    artefact = find_artefact(options.cache_dir, key)
    is_new = artefact is None
    if artefact is None:
        if reason := refusal_of(options.cache_dir, key, build.machine):
            raise UnsuitedError(reason)
        log.info("exporting %s in %s, once", fetched.name, build.precision)
        try:
            artefact = make_artefact(options.cache_dir, key, builder.fill)
        except UnsuitedError as error:
            note_refusal(options.cache_dir, key, build.machine, error.message)
            raise
    if max_tokens is not None and max_tokens > derived.max_tokens:
        raise FormatError(
            f"max_input_tokens is {max_tokens}, but {fetched.name} takes at most {derived.max_tokens}"
        )
    graph = derived.graph(artefact.folder)
    is_exported = derived.onnx_file is None
    has_attentions = (
        is_exported
        and not build.is_for_device
        and ROUTES[build.precision] is AttentionRoutes.BY_LENGTH
    )
    return Package(
        spec=_spec(
            fetched,
            derived,
            artefact,
            build,
            space=space,
            max_tokens=max_tokens or derived.max_tokens,
        ),
        build=build,
        graph_bytes=_bytes_beside(graph),
        quantiser=_quantiser(artefact.folder, builder),
        outputs=derived.head.outputs(artefact.folder, partial(_open_head, open_backend, heads_on)),
        has_attentions=has_attentions,
        artefact=artefact.folder,
        graph=graph,
        layout=derived.layout,
        tokenizer=derived.folder / "tokenizer.json",
        derived=derived,
        probes=artefact.probes,
        native_max_tokens=derived.max_tokens,
        aliases=fetched.card.aliases if fetched.card else (),
        is_new=is_new,
    )


def _open_head(
    open_backend: BackendFactory, provider: str, path: Path, layout: Layout, options: BackendOptions
) -> Backend:
    return open_backend(path, layout, dataclasses.replace(options, provider=provider))


def _quantiser(artefact: Path, builder: Builder) -> Quantiser:
    """What is kept beside the artefact, else what the bundled texts give, once; nothing where texts have no vector."""
    if OutputKind.DENSE not in builder.derived.head.kinds:
        return Quantiser()
    found = read_quantiser(artefact)
    if found is None:
        log.info("calibrating 8-bit vectors, once")
        texts = bundled_texts(builder.derived.head.dimensions)
        found = Quantiser(builder.vectors(artefact, texts), BUNDLED_SOURCE)
        try:
            write_quantiser(artefact, found)
        except ArtefactError as error:  # a cache that was filled elsewhere and is read-only here
            log.warning("calibration is not kept: %s", error.message)
    return found


def _bytes_beside(graph: Path) -> int:
    """Size of a graph and its weights."""
    return sum(file.stat().st_size for file in graph.parent.glob("*") if file.is_file())


def write_padded(package: Package, folder: Path) -> None:
    """Write a model's graph for other programs: standard ONNX with the usual padded inputs.

    Raises:
        FormatError: The model is served from a graph of its own, which is what others can take as it is.
        OSError: The disk is full or read-only.
    """
    derived = package.derived
    if package.layout is not Layout.PACKED:
        raise FormatError(f"{package.graph} has padded inputs already: take it as it is")
    if package.derived.head.tail() is not None or package.derived.head.asks_types:
        raise FormatError("only models that give a vector for each text can be written padded")
    export_padded_graph(derived.folder, derived.config, folder / GRAPH)


def _published(card: Card | None) -> tuple[Published, ...]:
    return card.published if card else ()


def _spec(
    fetched: Fetched,
    derived: Derived,
    artefact: Artefact,
    build: BuildOptions,
    *,
    space: str,
    max_tokens: int,
) -> ModelSpec:
    card, head = fetched.card, derived.head
    trained = card.trained_dimensions if card else ()
    return ModelSpec(
        name=fetched.name,
        hidden_size=head.dimensions,
        max_tokens=max_tokens,
        vocabulary_size=derived.vocabulary_size,
        pooling=derived.pooling,
        is_normalized=derived.is_normalized,
        prompts=derived.prompts,
        default_prompt=derived.default_prompt,
        pools_prompt=derived.pools_prompt,
        trained_dimensions=tuple(sorted({*trained, head.dimensions}, reverse=True)),
        space=space,
        precision=build.precision,
        created_s=artefact.created_s,
        source=fetched.origin,
        license=card.license if card else "",
        architecture=derived.architecture,
        kinds=head.kinds,
        labels=head.labels,
        activation=head.activation,
        instruct=derived.instruct,
        echo=derived.echo,
        late_interaction=head.late_interaction,
        trained_layers=card.trained_layers if card else (),
    )
