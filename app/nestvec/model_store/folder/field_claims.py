"""Every field of a folder's files, with what becomes of it: by the tables that stand beside their readers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from nestvec.export.two_towers.config import (
    TEXT_DEFAULTS,
    TOWER_FIELDS,
    TWO_TOWER_TYPES,
    VISION_DEFAULTS,
)
from nestvec.export.vision_language.config import VISION_LANGUAGE_TYPES, part_fields
from nestvec.model_store.folder.claims import FieldTable, FolderClaim, Verdict
from nestvec.model_store.folder.config_table import OWN_GRAPH_REASON, READ_ELSEWHERE, config_table
from nestvec.model_store.folder.module_tables import (
    MESSAGE_TABLE,
    MODEL_TABLE,
    MODULE_TABLES,
    MULTI_VECTOR_TABLE,
    ROUTER_TABLE,
    TRANSFORMER_TABLE,
)
from nestvec.model_store.folder.modules import (
    HIDDEN_STATES,
    LAYER_POOLING,
    TRANSFORMERS,
    Module,
)
from nestvec.model_store.folder.tokenizer_table import SPECIAL_TOKENS_TABLE, TOKENIZER_TABLE
from nestvec.model_store.folder.transformer_settings import TransformerSettings
from nestvec.model_store.heads.multi_vector import MASK
from nestvec.model_store.sources.file_names import (
    MODEL_FILE,
    ROUTER_FILE,
    SPECIAL_TOKENS_FILE,
    TOKENIZER_CONFIG_FILE,
)
from nestvec.model_store.vision_language.patch_models import PATCH_FAMILIES
from nestvec.system.json_files import read_json

CONFIG_FILE: Final = "config.json"


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """The files of a model's folder, as far as loading has come.

    Attributes:
        root: The model's folder.
        encoder: Its encoder's, the same or one in it.
        config: The encoder's config.json.
        architecture: The family's name, as the exporter knows it.
        modules: The module chain.
        settings: sentence-transformers' of the encoder.
        overrides: From a model card.
        has_own_graph: Whether a graph of the folder is served as it is.
    """

    root: Path
    encoder: Path
    config: Mapping[str, Any]
    architecture: str
    modules: Sequence[Module]
    settings: TransformerSettings
    overrides: Mapping[str, Any]
    has_own_graph: bool = False


def field_claims(files: FolderFiles, asked: frozenset[str]) -> tuple[FolderClaim, ...]:
    """List every field of a folder's files that a library may read, with what becomes of it.

    Args:
        files: The files.
        asked: The fields of config.json that the family's own reader has asked for.

    Raises:
        FormatError: A file is not JSON.
    """
    is_masked = any(module.kind == MASK for module in files.modules)
    transformer = MULTI_VECTOR_TABLE if is_masked else TRANSFORMER_TABLE
    if files.architecture in VISION_LANGUAGE_TYPES:
        transformer = MESSAGE_TABLE
    return (
        *_config_claims(files, asked),
        *_tokenizer_claims(files),
        *transformer.claims(_name(files, files.settings.path), files.settings.values),
        *_file_claims(files, files.root / MODEL_FILE, MODEL_TABLE),
        *_file_claims(files, files.root / ROUTER_FILE, ROUTER_TABLE),
        *_module_claims(files),
    )


def _config_claims(files: FolderFiles, asked: frozenset[str]) -> Iterator[FolderClaim]:
    if LAYER_POOLING in (module.kind for module in files.modules):
        asked |= {HIDDEN_STATES}
    table = config_table(files.architecture, files.config, asked)
    name = _name(files, files.encoder / CONFIG_FILE)
    for claim in table.claims(name, files.config):
        if files.has_own_graph and claim.field not in asked | READ_ELSEWHERE:
            yield replace(claim, verdict=Verdict.WITHOUT_EFFECT, reason=OWN_GRAPH_REASON)
        else:
            yield claim
    yield from _tower_claims(files, table, name)


def _tower_claims(files: FolderFiles, table: FieldTable, name: str) -> Iterator[FolderClaim]:
    """Iterate over the fields of the parts of a model that has several; those that make its sizes are honoured."""
    parts: Mapping[str, Iterable[str]] = {}
    if files.architecture in VISION_LANGUAGE_TYPES:
        parts = part_fields()
    elif files.architecture in PATCH_FAMILIES:
        parts = PATCH_FAMILIES[files.architecture].part_fields()
    elif files.architecture in TWO_TOWER_TYPES:
        towers = {"text_config": TEXT_DEFAULTS, "vision_config": VISION_DEFAULTS}
        parts = {name: (*each[files.architecture], *TOWER_FIELDS) for name, each in towers.items()}
    if files.has_own_graph:
        return
    for field, names in parts.items():
        known = table.with_honoured({"model_type", *names})
        values: Any = files.config
        for step in field.split("."):
            values = values.get(step) if isinstance(values, dict) else None
        for claim in known.claims(name, values if isinstance(values, dict) else {}):
            yield replace(claim, field=f"{field}.{claim.field}")


def _tokenizer_claims(files: FolderFiles) -> Iterator[FolderClaim]:
    is_plain = files.overrides.get("tokenizer") == "plain"
    tables = ((TOKENIZER_CONFIG_FILE, TOKENIZER_TABLE), (SPECIAL_TOKENS_FILE, SPECIAL_TOKENS_TABLE))
    for name, table in tables:
        for claim in _file_claims(files, files.encoder / name, table):
            if is_plain:
                reason = "the card takes tokenizer.json as it is"
                yield replace(claim, verdict=Verdict.WITHOUT_EFFECT, reason=reason)
            else:
                yield claim


def _module_claims(files: FolderFiles) -> Iterator[FolderClaim]:
    folders = [(each.kind, each.folder) for each in files.modules if each.kind not in TRANSFORMERS]
    if not files.modules:
        folders = [("Pooling", files.root / "1_Pooling")]
    for kind, folder in folders:
        for claim in _file_claims(files, folder / CONFIG_FILE, MODULE_TABLES[kind]):
            if kind == "Pooling" and "pooling" in files.overrides:
                reason = "the card says the pooling"
                yield replace(claim, verdict=Verdict.WITHOUT_EFFECT, reason=reason)
            elif folder.resolve() != files.root.resolve():
                yield claim


def _file_claims(files: FolderFiles, path: Path, table: FieldTable) -> Iterator[FolderClaim]:
    if path.is_file():
        yield from table.claims(_name(files, path), read_json(path))


def _name(files: FolderFiles, path: Path) -> str:
    """A file's path in the model's folder."""
    return path.relative_to(files.root).as_posix() if path.is_relative_to(files.root) else path.name
