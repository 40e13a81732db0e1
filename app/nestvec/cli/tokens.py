"""`nestvec tokens FILE…`: reports how well the model's tokenizer suits the user's own texts."""

import itertools
import json
from collections.abc import Iterator
from typing import Final

import click

from nestvec.assembly.package import prepare_model
from nestvec.cli.flags import settings_flags
from nestvec.config.settings import Settings
from nestvec.corpus.readers import Columns
from nestvec.corpus.sources import find_sources, read_sources
from nestvec.errors import FormatError
from nestvec.observability.logs import configure_logs
from nestvec.tools.tokenizer_report import advice, as_rows, measure_texts

COLUMN_HEADS: Final = (
    *("texts", "tokens", "unknown", "bytes/token", "tokens/word", "whole words", "evenness"),
    *("median", "99%", "cut"),
)


@click.command("tokens")
@click.argument("files", nargs=-1, required=True)
@click.option("--text-column", default="text", show_default=True, help="Of JSONL, CSV and Parquet.")
@click.option(
    "--language-column",
    help="Column that tells languages apart; by default texts are told by script.",
)
@click.option(
    "--most", "max_texts", default=100_000, show_default=True, help="Texts to read at most."
)
@click.option("--json", "is_json", is_flag=True, help="Figures as JSON.")
@settings_flags(
    *("model", "model_revision", "models_dir", "cache_dir", "offline", "log_level"),
    "max_input_tokens",
)
def command(
    settings: Settings,
    *,
    files: tuple[str, ...],
    text_column: str,
    language_column: str | None,
    max_texts: int,
    is_json: bool,
) -> None:
    """Report on the model's tokenizer over FILES (TXT, JSONL, CSV, Parquet, Arrow; - is standard input).

    Unknown tokens, bytes a token, pieces a word, and how many texts would be cut; by script or language, with advice.
    """
    configure_logs(level=settings.log_level, style="auto")
    package = prepare_model(settings)
    tokenizer = package.open_tokenizer(package.spec.max_tokens, settings.text.form())
    columns = Columns(text=text_column, id=language_column)

    def texts() -> Iterator[tuple[str, str]]:
        for record in read_sources(find_sources(files), columns):
            yield (record.id if language_column is not None else ""), record.text

    groups = measure_texts(itertools.islice(texts(), max_texts), tokenizer)
    if not groups:
        raise FormatError("no text in these files")
    rows, hints = as_rows(groups, tokenizer), advice(groups, tokenizer)
    if is_json:
        click.echo(
            json.dumps({"model": package.spec.name, "groups": rows, "advice": hints}, indent=1)
        )
        return
    click.echo(
        f"{package.spec.name}: {tokenizer.vocabulary_size} tokens, {tokenizer.max_tokens} a text\n"
    )
    width = max(len(row["language"]) for row in rows)
    click.echo(" " * width + "".join(f"{head:>12}" for head in COLUMN_HEADS))
    for row in rows:
        cells = (
            f"{row['texts']}",
            f"{row['tokens']}",
            f"{row['unknown_rate']:.2%}",
            f"{row['bytes_per_token']:.2f}",
            f"{row['tokens_per_word']:.2f}",
            f"{row['whole_word_rate']:.1%}",
            f"{row['renyi_efficiency']:.2f}",
            f"{row['tokens_p50']}",
            f"{row['tokens_p99']}",
            f"{row['cut_rate']:.1%}",
        )
        click.echo(row["language"].ljust(width) + "".join(f"{cell:>12}" for cell in cells))
    click.echo(
        "\n"
        + ("\n".join(f"- {hint}" for hint in hints) or "Nothing to advise: it suits these texts.")
    )
