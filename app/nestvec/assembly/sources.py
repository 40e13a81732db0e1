"""Settings to sources: where models come from; it imports nothing that reads or runs one."""

from pathlib import Path
from typing import Final

from nestvec.config.settings import Settings
from nestvec.errors import ModelError
from nestvec.model_store.sources.fetch import SourceOptions, check_source

# Model cards lie in the package in an installed wheel, at the root of a checkout.
PACKAGE_CARDS: Final = Path(__file__).parent.parent / "cards"
CHECKOUT_CARDS: Final = Path(__file__).parents[3] / "models"


def source_options(settings: Settings) -> SourceOptions:
    """Return where models come from: the user's own cards go before those of the project."""
    own_cards = (settings.models_dir,) if settings.models_dir else ()
    return SourceOptions(
        cache_dir=settings.cache_dir,
        card_dirs=(*own_cards, PACKAGE_CARDS, CHECKOUT_CARDS),
        revision=settings.model_revision,
        is_offline=settings.offline,
        reads_pickles=settings.read_pickles,
        picture_model=settings.picture_model,
    )


def check_sources(settings: Settings) -> None:
    """Refuse settings none of whose models can be had, before anything is fetched or listens.

    One of several that cannot leaves the others serving, and is logged when it is loaded.

    Raises:
        SourceError: No model's name stands for one, or none is there where the network must not be used.
        FormatError: A card cannot be read.
    """
    failure: ModelError | None = None
    for of_model in settings.per_model().values():
        try:
            check_source(of_model.model, source_options(of_model))
        except ModelError as error:
            failure = failure or error
        else:
            return
    if failure is not None:
        raise failure
