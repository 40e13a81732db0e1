"""`nestvec model import`: word vectors of other libraries become a model folder, with a card."""

from collections.abc import Iterator
from pathlib import Path

import click

from nestvec.cli.flags import settings_flags
from nestvec.config.settings import Settings
from nestvec.corpus.reading.records import Columns
from nestvec.corpus.reading.sources import find_sources, read_sources
from nestvec.errors import ConfigError
from nestvec.model_store.sources.card import Card, CardSource
from nestvec.model_store.sources.card_stub import write_card_stub
from nestvec.model_store.word_tables.importing import ImportOptions, ImportReport, import_table
from nestvec.model_store.word_tables.weighting import Weighting
from nestvec.observability.logs import configure_logs

SUFFIXES = (".gz", ".bin", ".vec", ".txt", ".magnitude")


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="The model's name; by default the file's, without its endings.")
@click.option("--alias", "aliases", multiple=True, help="A further name.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The new folder; by default one of the model's name, in models_dir or here.",
)
@click.option(
    "--lowercase/--keep-case",
    "lowercases",
    default=None,
    help="Whether texts are lower-cased; by default if no word of the table has a capital letter.",
)
@click.option(
    "--split",
    type=click.Choice(["words", "blanks"]),
    default="words",
    show_default=True,
    help="What texts are split into: words and marks, or whatever stands between blanks.",
)
@click.option("--max-words", type=click.IntRange(1), help="Take so many words from the start.")
@click.option(
    "--unknown",
    type=click.Choice(["leave-out", "characters"]),
    default="leave-out",
    show_default=True,
    help="What becomes of words that a table without n-grams lacks.",
)
@click.option(
    "--weights",
    metavar="idf|sif|FILE",
    help="What words count: by the corpus, or by lines of a word and its weight.",
)
@click.option(
    "--corpus",
    multiple=True,
    metavar="FILE",
    help="Texts to weigh words by (TXT, JSONL, CSV, Parquet).",
)
@click.option("--text-column", default="text", show_default=True, help="Of the corpus.")
@settings_flags("models_dir", "log_level")
def import_words(  # noqa: PLR0913 - a parameter for each option
    settings: Settings,
    *,
    file: Path,
    name: str | None,
    aliases: tuple[str, ...],
    out: Path | None,
    lowercases: bool | None,
    split: str,
    max_words: int | None,
    unknown: str,
    weights: str | None,
    corpus: tuple[str, ...],
    text_column: str,
) -> None:
    """Write a model folder of FILE, word vectors of word2vec, GloVe, fastText or Magnitude, packed by gzip or not.

    The folder is served as any other. With models_dir its card goes there, and the model is known by its name.
    """
    configure_logs(level=settings.log_level, style="auto")
    weighting = Weighting(weights) if weights in set(Weighting) else None
    weights_file = Path(weights) if weights and weighting is None else None
    if weights_file is not None and not weights_file.is_file():
        raise ConfigError([f"weights: '{weights}' is neither idf nor sif nor a file"])
    if corpus and weighting is None:
        raise ConfigError(["corpus: texts are for --weights idf or sif"])

    def texts() -> Iterator[str]:
        for record in read_sources(find_sources(corpus), Columns(text=text_column, id=None)):
            yield record.text

    name = name or _name(file)
    folder = out or (settings.models_dir or Path()) / name
    options = ImportOptions(
        lowercases=lowercases,
        splits_words=split == "words",
        max_words=max_words,
        backs_off=unknown == "characters",
        weighting=weighting,
        corpus=texts() if corpus else (),
        weights_file=weights_file,
    )
    report = import_table(file, folder, options)
    model = str(folder)
    if settings.models_dir is not None:
        path = settings.models_dir / f"{name.replace('/', '-')}.toml"
        write_card_stub(path, _card(name, aliases, folder, file, report))
        model = name
    for line in _told(report):
        click.echo(line)
    click.echo(f"written to {folder}; nestvec serve --model {model}")


def _name(file: Path) -> str:
    """Return a file's name without the endings of such files."""
    name = file.name
    while ending := next((suffix for suffix in SUFFIXES if name.endswith(suffix)), ""):
        name = name.removesuffix(ending)
    return name or "words"


def _card(
    name: str, aliases: tuple[str, ...], folder: Path, file: Path, report: ImportReport
) -> Card:
    """Return what is known of the model."""
    facts = {
        "dimensions": report.dimensions,
        "pooling": "mean",
        "parameters": report.parameters,
    }
    return Card(
        name,
        CardSource("folder", str(folder.resolve())),
        aliases,
        description=f"Word vectors, imported from {file.name} ({report.format_name}).",
        facts=facts,
        looked_up={f"facts.{fact}": "the imported file" for fact in facts},
    )


def _told(report: ImportReport) -> Iterator[str]:
    """What is said of an import, line by line."""
    parts = f" and {report.buckets} rows of n-grams" if report.buckets else ""
    yield f"{report.format_name}: {report.words} words of {report.dimensions} dimensions{parts}"
    yield "texts are lower-cased" if report.lowercases else "texts keep their capital letters"
    if report.is_weighted:
        yield "words have weights"
    if report.duplicates:
        yield f"{report.duplicates} words came again and were left out"
    if report.unreadable:
        yield (
            f"{report.unreadable} words were left out that no text can meet: empty, with blanks, or not UTF-8"
        )
    if report.unmet:
        yield (
            f"{report.unmet:.1%} of the first words are met in no text, as it is split and lower-cased: see --split"
        )
