"""`nestvec model prune`: a copy of a model whose token table holds what a corpus or a language needs."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from nestvec.assembly.sources import source_options
from nestvec.cli.flags import settings_flags
from nestvec.cli.model.merge import SOURCE_SETTINGS
from nestvec.config.settings import Settings
from nestvec.corpus.reading.records import Columns
from nestvec.corpus.reading.sources import find_sources, read_sources
from nestvec.errors import ConfigError
from nestvec.model_store.folder.model_folder import ModelFolder, read_model_folder
from nestvec.model_store.pruning.folder import (
    PrunedTokens,
    check_prunable,
    choose_tokens,
    write_pruned,
)
from nestvec.model_store.pruning.scripts import shown_scripts
from nestvec.model_store.sources.card import Card, CardSource
from nestvec.model_store.sources.card_stub import write_card_stub
from nestvec.model_store.sources.fetch import FetchedModel, fetch
from nestvec.observability.logs import configure_logs
from nestvec.tools.pruning import (
    CorpusTokens,
    PruningLoss,
    check_corpus,
    count_corpus,
    measure_loss,
    use_languages,
    weight_bytes,
)

MAX_HELD_OUT = 0.5
# Settings by which both models are loaded, to be compared.
SHARED = {"cache_dir", "models_dir", "offline", "read_pickles", "log_level"}


@click.command("prune")
@click.argument("source")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder.")
@click.option(
    "--corpus",
    multiple=True,
    metavar="FILE",
    help="Texts whose tokens are kept (TXT, JSONL, CSV, Parquet).",
)
@click.option("--text-column", default="text", show_default=True, help="Of the corpus.")
@click.option(
    "--language",
    "languages",
    multiple=True,
    metavar="TAG",
    help="Keep all tokens in the letters of a language (en, ru, zh).",
)
@click.option(
    "--held-out",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, MAX_HELD_OUT),
    help="Share of the texts that is measured with, and not kept by.",
)
@click.option("--name", help="The new model's name; by default that of the folder.")
@settings_flags(*SOURCE_SETTINGS, "read_pickles")
def prune(  # noqa: PLR0913 - a parameter for each option
    settings: Settings,
    *,
    source: str,
    out: Path,
    corpus: tuple[str, ...],
    text_column: str,
    languages: tuple[str, ...],
    held_out: float,
    name: str | None,
) -> None:
    """Write a copy of SOURCE (a card, a folder or a Hub id) to OUT, without the tokens that no text has.

    Texts of kept tokens have the vectors that they had. What others lose is measured on texts that are held out. The
    new model's card lies in models_dir, or in OUT.
    """
    configure_logs(level=settings.log_level, style="auto")
    if not corpus and not languages:
        raise ConfigError(["prune: give --corpus or --language"])
    fetched = fetch(source, source_options(settings))
    folder = _read(fetched.folder, fetched.card, settings)
    check_prunable(folder)

    def texts() -> Iterator[str]:
        for record in read_sources(find_sources(corpus), Columns(text=text_column, id=None)):
            yield record.text

    found = count_corpus(folder, texts() if corpus else (), held_out)
    use_languages(folder, found, languages)
    check_corpus(found, languages)
    tokens = choose_tokens(folder, found.used, frozenset(found.scripts))
    provenance: dict[str, object] = {
        "made_by": "prune",
        "model": fetched.name,
        "languages": list(languages),
        "corpus": [Path(path).name for path in corpus],
        "texts": found.texts,
        "tokens": len(tokens.old_ids),
        "tokens_before": tokens.rows,
    }
    write_pruned(fetched.folder, folder, tokens, out, provenance)
    card = _card(name or out.name, fetched, folder, tokens, out)
    path = settings.models_dir / f"{card.name}.toml" if settings.models_dir else out / "card.toml"
    write_card_stub(path, card)
    pruned = _read(out, card, settings)
    _tell(folder, pruned, tokens, found)
    models = (source, str(path))
    shared = settings.model_dump(include=SHARED)
    _tell_loss(measure_loss(folder, pruned, tokens, found, models, shared))
    click.echo(
        f"written to {out}; nestvec serve --model {card.name if settings.models_dir else path}"
    )


def _read(folder: Path, card: Card, settings: Settings) -> ModelFolder:
    """Read a model's folder with what its card adds."""
    return read_model_folder(
        folder, card.overrides, card.config, reads_pickles=settings.read_pickles
    )


def _card(
    name: str, fetched: FetchedModel, folder: ModelFolder, tokens: PrunedTokens, out: Path
) -> Card:
    """Return the card of the smaller model: what the model's own says, but for its size and place."""
    own = fetched.card
    facts: dict[str, Any] = {k: v for k, v in own.facts.items() if k != "parameters"}
    if own.parameters:
        removed = (tokens.rows - len(tokens.old_ids)) * folder.head.hidden_size
        facts["parameters"] = max(own.parameters - removed, 1)
    looked_up: Mapping[str, str] = {
        key: value
        for key, value in own.looked_up.items()
        if key not in ("source", "config", "published")
    }
    return replace(
        own,
        name=name,
        aliases=(),
        source=CardSource("folder", str(out.resolve())),
        description=f"{fetched.name} with {len(tokens.old_ids)} of {tokens.rows} tokens.",
        published=(),
        config={},
        facts=facts,
        looked_up=looked_up,
    )


def _tell(
    folder: ModelFolder, pruned: ModelFolder, tokens: PrunedTokens, found: CorpusTokens
) -> None:
    """Say what is kept."""
    before, after = weight_bytes(folder.path), weight_bytes(pruned.path)
    click.echo(
        f"{len(tokens.old_ids)} of {tokens.rows} tokens, {after / 2**20:.1f} of {before / 2**20:.1f} MiB "
        f"({after / before:.1%}); single letters of {shown_scripts(found.scripts)}"
    )


def _tell_loss(loss: PruningLoss) -> None:
    """Say what is lost."""
    if loss.texts:
        lost = (
            f"on {loss.texts} texts held out: {loss.lost_tokens:.2%} of their tokens are others now"
        )
        if loss.min_cosine is not None:
            lost += (
                f"; cosine to the model's own vectors {loss.mean_cosine:.4f} on average, "
                f"{loss.min_cosine:.4f} at worst"
            )
        click.echo(lost)
    if loss.kept_texts:
        same = (
            f"of {loss.kept_texts} texts of kept tokens {loss.same_texts} are tokenized as before"
        )
        if loss.max_kept_error is not None:
            same += f"; their vectors differ by at most {loss.max_kept_error:.1e}"
        click.echo(same)
