"""The gate: everything in a folder that a library may read, and whether it is honoured, without effect, or refused.

Loading goes through the same tables (`field_claims`) and the same readers; here nothing is served, so that everything
that is wrong with a folder is listed, not the first only.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from nestvec.errors import FormatError
from nestvec.export.architectures import ARCHITECTURES, architecture_of
from nestvec.export.config.quantization import read_quantization
from nestvec.model_store.folder.claims import FolderClaim, Recording, Verdict
from nestvec.model_store.folder.field_claims import FolderFiles, field_claims
from nestvec.model_store.folder.model_folder import find_encoder, read_model_folder
from nestvec.model_store.folder.modules import Module
from nestvec.model_store.folder.pooling_settings import read_pooling
from nestvec.model_store.folder.remote_code import with_code
from nestvec.model_store.folder.tokenizer_files import read_tokenizer_changes
from nestvec.model_store.folder.transformer_settings import (
    TransformerSettings,
    check_transformer_settings,
    find_transformer_settings,
)
from nestvec.model_store.heads.base import read_prompts
from nestvec.model_store.heads.dense import DenseHead
from nestvec.model_store.heads.rerankers import scores_in_pairs
from nestvec.model_store.sources.graph_choice import choose_graph

T = TypeVar("T")


def folder_claims(
    folder: Path,
    overrides: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    reads_pickles: bool = True,
) -> tuple[FolderClaim, ...]:
    """List every field of a model's folder, with what becomes of it.

    Args:
        folder: As `read_model_folder` takes it.
        overrides: From a model card.
        config: From a model card: stands for a config.json that the folder lacks.
        reads_pickles: As `read_model_folder` takes it.

    Returns:
        The claims, files in the order in which they are read. What a reader refuses is among them with the message that
        loading gives; with no field where that message names none of the folder's fields.

    Raises:
        FormatError: The folder has no encoder, or its modules are not known: no more can be said of it.
    """
    encoder, content, overrides, modules, is_static = find_encoder(folder, overrides or {}, config)
    messages: list[str] = []
    settings = TransformerSettings(encoder)
    claims: tuple[FolderClaim, ...] = ()
    if not is_static:
        own_graph = _tried(
            messages,
            lambda: choose_graph(encoder, architecture_of(content), reads_pickles=reads_pickles),
        )
        settings = _tried(messages, lambda: find_transformer_settings(encoder)) or settings
        files = FolderFiles(
            root=folder,
            encoder=encoder,
            config=content,
            architecture=architecture_of(content),
            modules=modules,
            settings=settings,
            overrides=overrides,
            has_own_graph=own_graph is not None and own_graph[0] is not None,
        )
        asked = _asked(files, messages)
        claims = field_claims(files, asked)
        for reader in _readers(files, modules):
            _tried(messages, reader)
    if not messages and not any(claim.verdict is Verdict.REFUSED for claim in claims):
        _tried(messages, lambda: _read_whole(folder, overrides, config, reads_pickles))
    return _with_refusals(folder, claims, messages)


def _asked(files: FolderFiles, messages: list[str]) -> frozenset[str]:
    """The fields of config.json that the family's reader asks for."""
    family = ARCHITECTURES.get(files.architecture)
    if family is None or files.has_own_graph:
        return frozenset({"hidden_size", "vocab_size", "max_position_embeddings"})
    asked = Recording(files.config)
    _tried(messages, lambda: family.dimensions(asked))
    return frozenset(asked.read)


def _readers(files: FolderFiles, modules: tuple[Module, ...]) -> Iterator[Callable[[], object]]:
    """The readers whose refusals do not depend on one another."""
    size = files.config.get("vocab_size")
    rows = size if isinstance(size, int) else 0
    if not files.has_own_graph:
        yield lambda: read_quantization(files.config)
        yield lambda: with_code(files.config, files.architecture, files.overrides)
    kinds = [module.kind for module in modules]
    scores_pairs = scores_in_pairs(files.config, kinds, files.overrides)
    yield lambda: check_transformer_settings(
        files.settings, files.architecture, scores_pairs=scores_pairs
    )
    yield lambda: read_pooling(files.root, modules, files.overrides)
    yield lambda: read_prompts(files.root, files.overrides)
    yield lambda: read_tokenizer_changes(
        files.encoder, files.config, rows, files.overrides, files.settings
    )


def _read_whole(
    folder: Path,
    overrides: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    reads_pickles: bool,  # noqa: FBT001 - the setting itself
) -> None:
    """Read the folder as loading does, and the layers behind its pooling, which are read when an artefact is built."""
    head = read_model_folder(folder, overrides, config, reads_pickles=reads_pickles).head
    if isinstance(head, DenseHead):
        head.read_layers()


def _tried(messages: list[str], read: Callable[[], T]) -> T | None:
    """Return what a reader gives; None where it refuses, with its message noted."""
    try:
        return read()
    except FormatError as error:
        if error.message not in messages:
            messages.append(error.message)
        return None


def _with_refusals(
    folder: Path, claims: tuple[FolderClaim, ...], messages: list[str]
) -> tuple[FolderClaim, ...]:
    """Mark the claims that readers refuse, and add what they refuse as a whole."""
    marked = list(claims)
    for message in messages:
        shown = message.replace(f"{folder}/", "")
        named = [
            (message.rfind(claim.file), len(claim.field), -number, number)
            for number, claim in enumerate(marked)
            if claim.file in message and re.search(rf"\b{re.escape(claim.field)}\b", message)
        ]
        if named:
            number = max(named)[-1]
            marked[number] = replace(marked[number], verdict=Verdict.REFUSED, reason=shown)
        else:
            marked.append(FolderClaim("", "", "", Verdict.REFUSED, shown))
    return tuple(marked)
