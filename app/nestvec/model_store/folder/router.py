"""sentence-transformers' Router: chains of modules of which a text takes one, by what it is for.

Source: `Router.load` and `Router._resolve_route` of sentence-transformers 5.7 and 6.2.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer as LibraryTokenizer

from nestvec.engine.text.tokenizer_changes import TokenizerChanges
from nestvec.errors import FormatError
from nestvec.model_store.folder.tokenizer_files import read_tokenizer_changes
from nestvec.model_store.folder.transformer_settings import TransformerSettings
from nestvec.model_store.sources.file_names import ROUTER_FILE
from nestvec.system.json_files import read_json

OLD_FILE: Final = "config.json"  # of older versions
TASKS: Final = ("query", "document")
MODALITY: Final = "text"
MAX_MODULES: Final = 32  # of all routes; models have three or four


@dataclass(frozen=True, slots=True)
class Routes:
    """What queries and documents go through: class and path of each module, the path relative to the router's folder.

    Attributes:
        query: The chain of queries; the documents' where both take one route.
        document: The chain of documents.
        is_query_default: Whether texts that are said to be neither take the queries' route.
    """

    query: tuple[tuple[str, str], ...]
    document: tuple[tuple[str, str], ...]
    is_query_default: bool

    @property
    def is_shared(self) -> bool:
        """Whether queries and documents go through the same modules."""
        return self.query == self.document


def read_routes(folder: Path) -> Routes:
    """Read the settings of a Router.

    Args:
        folder: The router's folder.

    Raises:
        FormatError: They cannot be read, or say no route for queries or for documents.
    """
    path, config = _settings(folder)
    types, structure = config.get("types"), config.get("structure")
    parameters = config.get("parameters") or {}
    if not isinstance(types, dict) or not _are_texts(types):
        raise FormatError(f"{path}: types: must map modules to classes")
    if not isinstance(structure, dict) or not structure:
        raise FormatError(f"{path}: structure: must map routes to modules")
    if not isinstance(parameters, dict):
        raise FormatError(f"{path}: parameters: must be an object")
    chains = _chains(path, types, structure)
    mappings = _mappings(path, parameters.get("route_mappings") or {})
    routes = {task: _route(task, chains, mappings) for task in (*TASKS, None)}
    for task in TASKS:
        if routes[task] not in chains:
            raise FormatError(f"{path}: structure: no route for texts that are a {task}")
    default = routes[None] or parameters.get("default_route")
    if default is None and parameters.get("allow_empty_key", True) is not False:
        default = next(iter(chains))
    if default is not None and (not isinstance(default, str) or default not in chains):
        raise FormatError(f"{path}: default_route: {default!r} is none of {', '.join(chains)}")
    query, document = (chains[str(routes[task])] for task in TASKS)
    return Routes(query, document, default is not None and chains[default] == query != document)


def _chains(
    path: Path, types: Mapping[str, str], structure: Mapping[str, object]
) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return class and path of each module of each route.

    Raises:
        FormatError: A route lists what is no module, or there are too many.
    """
    chains: dict[str, tuple[tuple[str, str], ...]] = {}
    for route, names in structure.items():
        if not isinstance(names, list) or not names or not set(map(str, names)) <= set(types):
            raise FormatError(f"{path}: structure: '{route}' must list modules that types names")
        chains[route] = tuple((types[str(name)], str(name)) for name in names)
    if sum(map(len, chains.values())) > MAX_MODULES:
        raise FormatError(f"{path}: structure: more than {MAX_MODULES} modules")
    return chains


def check_query_tokenizer(
    query: Path,
    encoder: Path,
    changes: TokenizerChanges,
    config: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> None:
    """Check that queries, which have a tokenizer of their own beside their weights, get the ids that documents get.

    Args:
        query: Folder of the queries' module.
        encoder: Folder of the documents' encoder.
        changes: What the files beside the encoder's tokenizer.json make other than it says.
        config: The encoder's config.json.
        overrides: From a model card.

    Raises:
        FormatError: They get others, or the tokenizer cannot be read.
    """
    own, other = query / "tokenizer.json", encoder / "tokenizer.json"
    if not own.is_file():
        raise FormatError(f"{own}: missing, so the ids of queries are unknown")
    # A class that it does not name is that of the model, which only the encoder's config.json says.
    rows = int(config.get("vocab_size") or 0)
    own_changes = read_tokenizer_changes(query, config, rows, overrides, TransformerSettings(query))
    if _plain_tokenizer(own) != _plain_tokenizer(other) or own_changes != changes:
        raise FormatError(
            f"{own}: another tokenizer than {other.name} of the encoder; queries and documents must share one"
        )


def _plain_tokenizer(path: Path) -> str:
    """A tokenizer.json without padding and truncation, which are switched off, as its library writes it."""
    try:
        library = LibraryTokenizer.from_file(str(path))
    except Exception as error:
        raise FormatError(f"{path}: not a readable tokenizer.json ({error})") from error
    library.no_padding()
    library.no_truncation()
    text: str = library.to_str()
    return text


def _settings(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """Return the file with a router's settings, and its content; a config.json may be the encoder's own.

    Raises:
        FormatError: There is none.
    """
    path = folder / ROUTER_FILE
    if path.is_file():
        return path, read_json(path)
    old = folder / OLD_FILE
    config = read_json(old) if old.is_file() else {}
    if "types" not in config:
        raise FormatError(f"{path}: missing, so what a text goes through is unknown")
    return old, config


def _are_texts(values: Mapping[object, object]) -> bool:
    return all(isinstance(text, str) for text in values.values())


def _mappings(path: Path, mappings: object) -> Mapping[tuple[str, ...], str]:
    """Return routes by task and modality; keys are written as Python writes a pair of them: `('query', 'text')`."""
    if not isinstance(mappings, dict) or not _are_texts(mappings):
        raise FormatError(f"{path}: route_mappings: must map pairs to routes")
    return {tuple(re.findall(r"[\w-]+", key)): route for key, route in mappings.items()}


def _route(
    task: str | None,
    chains: Mapping[str, Sequence[object]],
    mappings: Mapping[tuple[str, ...], str],
) -> str | None:
    """Return the route of a task's texts; None where only the default is left."""
    for key in ((task, MODALITY), (task, None), (None, MODALITY), (None, None)):
        if route := mappings.get(tuple(map(str, key))):
            return route
    return next((name for name in (task, MODALITY) if name in chains), None)
