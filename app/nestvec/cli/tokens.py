"""`nestvec tokens FILE…`: reports how well the model's tokenizer suits the user's own texts."""

import json
from typing import Any, Final

import click

from nestvec.assembly.package import prepare_model
from nestvec.cli.flags import settings_flags
from nestvec.config.settings import Settings
from nestvec.corpus.reports.frame import Subject, Task
from nestvec.corpus.reports.kinds.tokens import GROUPS, measure_texts_alone
from nestvec.corpus.reports.reading import ReportFiles
from nestvec.observability.logs import configure_logs

COLUMNS: Final = (
    ("texts", "texts", ""),
    ("tokens", "tokens", ""),
    ("unknown", "unknown_rate", ".2%"),
    ("bytes/token", "bytes_per_token", ".2f"),
    ("tokens/word", "tokens_per_word", ".2f"),
    ("whole words", "whole_word_rate", ".1%"),
    ("evenness", "renyi_efficiency", ".2f"),
    ("median", "tokens_p50", ""),
    ("99%", "tokens_p99", ""),
    ("cut", "cut_rate", ".1%"),
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
    `nestvec report tokens` looks at the vocabulary too, and needs the whole model.
    """
    configure_logs(level=settings.log_level, style="auto")
    package = prepare_model(settings)
    tokenizer = package.open_tokenizer(package.spec.max_tokens, settings.text.form())
    data = ReportFiles(
        files,
        text_column=text_column,
        label_column=language_column,
        max_items=max_texts,
        keeps_empty=True,
    ).read()
    subject = Subject.of_tokenizer(package.spec.name, package.spec.space, tokenizer)
    figures = measure_texts_alone(Task(data, subject))
    table = next(table for table in figures.tables if table.title == GROUPS)
    rows: list[dict[str, Any]] = [dict(zip(table.heads, row, strict=True)) for row in table.rows]
    if is_json:
        content = {"model": package.spec.name, "groups": rows, "advice": list(figures.notes)}
        click.echo(json.dumps(content, indent=1))
        return
    click.echo(
        f"{package.spec.name}: {tokenizer.vocabulary_size} tokens, {tokenizer.max_tokens} a text\n"
    )
    width = max(len(row["language"]) for row in rows)
    click.echo(" " * width + "".join(f"{head:>12}" for head, _, _ in COLUMNS))
    for row in rows:
        cells = (f"{row[name]:{form}}" for _, name, form in COLUMNS)
        click.echo(row["language"].ljust(width) + "".join(f"{cell:>12}" for cell in cells))
    click.echo(
        "\n"
        + (
            "\n".join(f"- {hint}" for hint in figures.notes)
            or "Nothing to advise: it suits these texts."
        )
    )
