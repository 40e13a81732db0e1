"""From a model's name to everything that serving needs: fetch, derive, export if need be."""

import logging
from dataclasses import dataclass
from pathlib import Path

from app.engine.backend import BackendFactory, BackendOptions
from app.engine.registry import ModelSpec
from app.engine.tokenizer import Tokenizer
from app.engine.types import FloatArray, Layout
from app.errors import FormatError
from app.export.architectures import export_graph
from app.packages.artefacts import GRAPH, Artefact, find_artefact, make_artefact
from app.packages.card import Card, Published
from app.packages.derive import Derived, derive
from app.packages.fingerprint import HashCache, space_fingerprint
from app.packages.probes import PROBE_TEXTS, check_published, compute_vectors
from app.packages.sources import Fetched, SourceOptions, fetch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Package:
    """A model that is ready to be opened.

    Attributes:
        spec: What serving needs to know.
        graph: The ONNX file to open.
        layout: Which inputs it takes.
        tokenizer: Path of tokenizer.json.
        probes: Stored vectors of the probe texts, (P, H), float32.
        native_max_tokens: What the model takes, whatever `spec.max_tokens` allows.
        is_new: Whether it was exported just now.
    """

    spec: ModelSpec
    graph: Path
    layout: Layout
    tokenizer: Path
    probes: FloatArray
    native_max_tokens: int
    aliases: tuple[str, ...] = ()
    is_new: bool = False


def prepare(
    model: str,
    options: SourceOptions,
    open_backend: BackendFactory,
    *,
    max_tokens: int | None = None,
    refresh: bool = False,
) -> Package:
    """Fetch a model and make its artefact unless the cache has it.

    Args:
        model: See `sources.fetch`.
        options: Cache, cards, offline.
        open_backend: Opens a graph, to compute the probes of a new artefact.
        max_tokens: Serve fewer tokens an input than the model takes.
        refresh: Ask the source again.

    Raises:
        ModelError: Anything wrong with source, files, export or cache.
    """
    fetched = fetch(model, options, refresh=refresh)
    overrides = fetched.card.overrides if fetched.card else {}
    derived = derive(fetched.folder, overrides)
    space = space_fingerprint(derived, HashCache(options.cache_dir / "hashes.json"))
    artefact = find_artefact(options.cache_dir, space)
    is_new = artefact is None
    if artefact is None:
        log.info("exporting %s, once", fetched.name)
        artefact = make_artefact(
            options.cache_dir, space, lambda folder: _fill(folder, derived, fetched, open_backend)
        )
    if max_tokens is not None and max_tokens > derived.max_tokens:
        raise FormatError(
            f"max_input_tokens is {max_tokens}, but {fetched.name} takes at most {derived.max_tokens}"
        )
    return Package(
        spec=_spec(fetched, derived, space, artefact, max_tokens or derived.max_tokens),
        graph=_graph_path(derived, artefact.folder),
        layout=derived.layout,
        tokenizer=derived.folder / "tokenizer.json",
        probes=artefact.probes,
        native_max_tokens=derived.max_tokens,
        aliases=fetched.card.aliases if fetched.card else (),
        is_new=is_new,
    )


def _graph_path(derived: Derived, artefact_folder: Path) -> Path:
    return derived.folder / derived.onnx_file if derived.onnx_file else artefact_folder / GRAPH


def _fill(
    folder: Path, derived: Derived, fetched: Fetched, open_backend: BackendFactory
) -> FloatArray:
    """Write the graph; compute the probes with the fp32 CPU graph; compare with published vectors."""
    if derived.onnx_file is None:
        export_graph(derived.folder, derived.config, folder / GRAPH)
    graph = _graph_path(derived, folder)
    tokenizer = Tokenizer(
        derived.folder / "tokenizer.json",
        max_tokens=derived.max_tokens,
        vocabulary_size=derived.vocabulary_size,
    )
    backend = open_backend(graph, derived.layout, BackendOptions(provider="cpu"))
    try:
        if backend.hidden_size != derived.hidden_size:
            raise FormatError(
                f"{graph}: gives {backend.hidden_size} values, config.json says {derived.hidden_size}"
            )
        check_published(backend, tokenizer, derived.pooling, _published(fetched.card))
        return compute_vectors(backend, tokenizer, derived.pooling, PROBE_TEXTS)
    finally:
        backend.close()


def _published(card: Card | None) -> tuple[Published, ...]:
    return card.published if card else ()


def _spec(
    fetched: Fetched, derived: Derived, space: str, artefact: Artefact, max_tokens: int
) -> ModelSpec:
    card = fetched.card
    trained = card.trained_dimensions if card else ()
    return ModelSpec(
        name=fetched.name,
        hidden_size=derived.hidden_size,
        max_tokens=max_tokens,
        vocabulary_size=derived.vocabulary_size,
        pooling=derived.pooling,
        is_normalized=derived.is_normalized,
        prompts=derived.prompts,
        default_prompt=derived.default_prompt,
        pools_prompt=derived.pools_prompt,
        trained_dimensions=tuple(sorted({*trained, derived.hidden_size}, reverse=True)),
        space=space,
        created_s=artefact.created_s,
        source=fetched.origin,
        license=card.license if card else "",
        architecture=derived.architecture,
    )
