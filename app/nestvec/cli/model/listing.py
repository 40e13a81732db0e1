"""`nestvec model list`, `show`, `rm` and `du`: which models there are, and what of them is on this disk."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from nestvec.assembly.sources import source_options
from nestvec.cli.flags import settings_flags
from nestvec.cli.model.page import model_page
from nestvec.cli.tables import bytes_text, count_text, echo_table
from nestvec.config.settings import Settings
from nestvec.errors import FormatError, SourceError
from nestvec.model_store.artefacts.maps import list_maps, read_map
from nestvec.model_store.inventory import (
    CacheEntry,
    CacheKind,
    entries_of,
    list_cache,
    remove_entry,
)
from nestvec.model_store.sources.card import Card, CardSource, read_cards
from nestvec.model_store.sources.suggestions import unknown_model

CARD_SETTINGS: Final = ("models_dir", "cache_dir")
UNKNOWN: Final = "-"
AS_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that has a card, or that the cache has.

    Attributes:
        name: What to call it on the command line.
        card: Its card; one that says no more than where it is, where it has none.
        entries: What the cache has of it.
    """

    name: str
    card: Card
    entries: tuple[CacheEntry, ...]

    @property
    def cached_bytes(self) -> int:
        """What it takes on this disk; 0 where it is not there."""
        return sum(entry.size_bytes for entry in self.entries)

    @property
    def is_called(self) -> frozenset[str]:
        """All of its names, in lower case."""
        names = (self.name, self.card.name, *self.card.aliases, self.card.source.name)
        return frozenset(name.casefold() for name in names)

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints of it."""
        return {
            "name": self.name,
            **self.card.as_json(),
            "source": f"{self.card.source.kind} {self.card.source.name}",
            "revision": self.card.source.version or None,
            "cached_bytes": self.cached_bytes,
        }


def known_models(settings: Settings) -> list[KnownModel]:
    """Return all models that have a card, and those without one that the cache has."""
    entries = list_cache(settings.cache_dir)
    cards = read_cards(source_options(settings).card_dirs)
    models = [
        KnownModel(name, card, tuple(entries_of(card, entries))) for name, card in cards.items()
    ]
    owned = {id(entry) for model in models for entry in model.entries}
    models += _without_cards([entry for entry in entries if id(entry) not in owned])
    return sorted(models, key=lambda model: model.name.casefold())


def find_known(settings: Settings, name: str) -> KnownModel:
    """Find a model by any of its names.

    Raises:
        SourceError: It has no card and is not in the cache; suggests names.
    """
    for model in known_models(settings):
        if name.casefold() in model.is_called:
            return model
    raise SourceError(unknown_model(name, source_options(settings).card_dirs))


@click.command("list")
@click.option("--cached", is_flag=True, help="Only those on this disk.")
@click.option("--trained-dims", is_flag=True, help="Only those trained for several sizes.")
@click.option("--lang", help="Only those whose card names this language, by its code.")
@AS_JSON
@settings_flags(*CARD_SETTINGS)
def list_models(
    settings: Settings, *, cached: bool, trained_dims: bool, lang: str | None, as_json: bool
) -> None:
    """List models that have a card, and those of the cache.

    DIMENSIONS has in brackets what the authors trained beside the full size. Any folder or Hub id can be served too. A
    dash: the card does not say it.
    """
    models = [
        model
        for model in known_models(settings)
        if (not cached or model.entries)
        and (not trained_dims or model.card.smaller_dimensions)
        and (lang is None or lang.casefold() in map(str.casefold, model.card.languages))
    ]
    if as_json:
        click.echo(json.dumps([model.as_json() for model in models], indent=1))
        return
    rows = [("NAME", "DIMENSIONS", "TOKENS", "PARAMETERS", "LICENCE", "LANGUAGES", "CACHED")]
    echo_table([*rows, *map(_row, models)], right=(2, 3, 6))


@click.command("show")
@click.argument("name")
@AS_JSON
@click.option(
    "--markdown", is_flag=True, help="Write a page: what it is, and what was measured of it here."
)
@settings_flags(*CARD_SETTINGS, "offline")
def show(settings: Settings, *, name: str, as_json: bool, markdown: bool) -> None:
    """Show what is known of model NAME, and what of it is on this disk."""
    if markdown:
        click.echo(model_page(settings, name), nl=False)
        return
    model = find_known(settings, name)
    if as_json:
        click.echo(json.dumps(model.as_json(), indent=1))
        return
    card = model.card
    described = [("description", card.description)] if card.description else []
    facts = model.as_json()
    shown = [
        ("name", card.name),
        *described,
        ("names", ", ".join(dict.fromkeys((model.name, *card.aliases)))),
        ("source", " ".join(filter(None, (facts["source"], facts["revision"])))),
        ("licence", card.license or UNKNOWN),
        ("languages", ", ".join(model.card.languages) or UNKNOWN),
        ("parameters", count_text(model.card.parameters) if model.card.parameters else UNKNOWN),
        ("dimensions", _dimensions(model)),
        ("tokens", str(facts["max_tokens"] or UNKNOWN)),
        ("pooling", str(card.facts.get("pooling", UNKNOWN))),
        ("prompts", ", ".join(card.overrides.get("prompts", {})) or "as its files say"),
        *[("exits", ", ".join(map(str, card.trained_layers)))] * bool(card.trained_layers),
        ("cached", bytes_text(model.cached_bytes) if model.entries else "no"),
    ]
    for label, value in shown:
        click.echo(f"{label:<12} {value}")
    for entry in model.entries:
        click.echo(f"{'':<12} {_described(entry)}  {entry.paths[0]}")
    for line in (line for entry in model.entries for line in _maps(entry)):
        click.echo(f"{'map':<12} {line}")


@click.command("rm")
@click.argument("names", nargs=-1, required=True)
@click.option("--exports-only", is_flag=True, help="Keep the files that were fetched.")
@settings_flags(*CARD_SETTINGS)
def remove(settings: Settings, *, names: Sequence[str], exports_only: bool) -> None:
    """Remove models from this disk: fetched files and exported graphs. Folders of yours are never touched.

    A server that runs one goes on; its next start fetches and exports it again.
    """
    for model in [find_known(settings, name) for name in names]:
        entries = [
            entry
            for entry in model.entries
            if entry.kind is not CacheKind.FILES or not exports_only
        ]
        for entry in entries:
            remove_entry(entry, settings.cache_dir)
        size = bytes_text(sum(entry.size_bytes for entry in entries))
        click.echo(f"{model.name}: {size} freed" if entries else f"{model.name}: not on this disk")


@click.command("du")
@settings_flags("models_dir", "cache_dir")
def usage(settings: Settings) -> None:
    """Show what each model takes on this disk, the largest first."""
    models = sorted(
        (model for model in known_models(settings) if model.entries),
        key=lambda model: -model.cached_bytes,
    )
    rows = [("NAME", "FILES", "EXPORTS", "TOTAL")]
    for model in models:
        files = sum(e.size_bytes for e in model.entries if e.kind is CacheKind.FILES)
        exports = model.cached_bytes - files
        sizes = (bytes_text(files), bytes_text(exports), bytes_text(model.cached_bytes))
        rows.append((model.name, *sizes))
    total = sum(entry.size_bytes for entry in list_cache(settings.cache_dir))
    if rest := total - sum(model.cached_bytes for model in models):
        rows.append(("(of no known model: `nestvec cache list`)", "", "", bytes_text(rest)))
    echo_table([*rows, ("total", "", "", bytes_text(total))], right=(1, 2, 3))


def _without_cards(entries: Sequence[CacheEntry]) -> Iterator[KnownModel]:
    """The models of entries that no card owns; files and exports of one name are one model."""
    # An export of before there were notes has no model's name, until the model is used again.
    named = [
        e for e in entries if e.kind is CacheKind.FILES or (e.kind is CacheKind.EXPORT and e.detail)
    ]
    for name in dict.fromkeys(e.name for e in named):
        own = tuple(e for e in named if e.name == name)
        kind = "hub" if any(e.detail.startswith("hub ") for e in own) else "folder"
        yield KnownModel(name, Card(name, CardSource(kind, name)), own)


def _row(model: KnownModel) -> tuple[str, ...]:
    return (
        model.name,
        _dimensions(model),
        str(model.card.facts.get("max_tokens", UNKNOWN)),
        count_text(model.card.parameters) if model.card.parameters else UNKNOWN,
        model.card.license or UNKNOWN,
        _languages(model.card.languages),
        bytes_text(model.cached_bytes) if model.entries else UNKNOWN,
    )


def _dimensions(model: KnownModel) -> str:
    if not model.card.dimensions:
        return UNKNOWN
    trained = " ".join(map(str, model.card.smaller_dimensions))
    return f"{model.card.dimensions} ({trained})" if trained else str(model.card.dimensions)


def _languages(languages: Sequence[str]) -> str:
    """Codes, of many only how many: a row has to fit a terminal."""
    few = 3
    if len(languages) > few:
        return f"{len(languages)} languages"
    return ", ".join(languages) or UNKNOWN


def _described(entry: CacheEntry) -> str:
    days = int(entry.unused_days(time.time()))
    used = "used today" if days == 0 else f"used {days} days ago"
    kind = f"{entry.kind} {entry.detail}" if entry.kind is CacheKind.EXPORT else str(entry.kind)
    return f"{bytes_text(entry.size_bytes):>8}  {kind:<20}  {used}"


def _maps(entry: CacheEntry) -> Iterator[str]:
    """Describe the maps beside an export: what they are, of how many values, and their labels."""
    for path in list_maps(entry.paths[0]) if entry.kind is CacheKind.EXPORT else ():
        try:
            affine_map = read_map(path)
        except FormatError:
            yield f"{path.stem}: damaged, and left out by servers"
            continue
        shape = f"{len(affine_map.weight)} to {affine_map.width} values"
        learned = "" if affine_map.label_calibration is None else ", calibrated"
        labels = f": {', '.join(affine_map.labels)}" if affine_map.labels else ""
        yield f"{affine_map.name}: {affine_map.kind}, {shape}{learned}{labels}"
