"""`nestvec search STORE QUERY`: a first look at what `nestvec embed` put into a vector store."""

import asyncio
import json
import textwrap
from typing import Final

import click

from nestvec.cli.corpus.embed import open_source
from nestvec.cli.flags import settings_flags
from nestvec.cli.server_flags import ServerAddress, check_one_model, server_flags
from nestvec.cli.tables import echo_table
from nestvec.config.settings import Settings
from nestvec.corpus.search import query_options, search_store
from nestvec.corpus.store_writer import Hit
from nestvec.corpus.stores.registry import ENDINGS, SCHEMES, find_store
from nestvec.errors import FormatError
from nestvec.observability.logs import configure_logs

TEXT_CHARACTERS: Final = 80


@click.command("search")
@click.argument("store")
@click.argument("query")
@click.option(
    "--limit", type=click.IntRange(min=1), default=10, show_default=True, help="Most rows."
)
@click.option(
    "--prompt-name",
    help="One of the model's prompts; default: the one for queries, if it has one.",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON object a row, with the whole text.")
@server_flags(help_of_url="Let a running server embed the query.")
@settings_flags(
    *("model", "model_revision", "models_dir", "cache_dir", "offline", "provider", "device_id"),
    "picture_model",
    *("precision", "calibration_file", "weight_storage", "log_level"),
)
def command(  # noqa: PLR0913 - one argument a flag, as click passes them
    settings: Settings,
    *,
    store: str,
    query: str,
    limit: int,
    prompt_name: str | None,
    as_json: bool,
    server: ServerAddress,
) -> None:
    """Show the rows of STORE that are nearest to QUERY.

    STORE is what `nestvec embed` was given as its target: an address such as lancedb://folder/table, or a .faiss,
    .usearch or .hnsw file. The query is embedded by the model that the store names, with its prompt for queries.
    """
    # An answer of ten lines wants none about the model's loading before it.
    level = settings.log_level if "log_level" in settings.model_fields_set else "warning"
    configure_logs(level=level, style="auto")
    check_one_model(server, settings)
    kind = find_store(store)
    if kind is None:
        raise FormatError(
            f"{store}: no vector store; known: {', '.join([f'{name}://' for name in SCHEMES] + list(ENDINGS))}"
        )
    kind.check(store)
    reader = kind.read(store)
    try:
        query_options(reader.metadata, prompt_name)
        model = reader.metadata.get("nestvec.model", "")
        recipe = model if model in settings.recipes and not server.url else ""
        if not recipe and model and "model" not in settings.model_fields_set:
            settings = settings.model_copy(update={"model": model})

        async def work() -> list[Hit]:
            async with open_source(settings, server, recipe) as source:
                return await search_store(source, reader, query, limit, prompt_name)

        hits = asyncio.run(work())
    finally:
        reader.close()
    _echo(hits, as_json=as_json)


def _echo(hits: list[Hit], *, as_json: bool) -> None:
    """Print rows: as a table for people, or as JSON."""
    if as_json:
        for hit in hits:
            row = {"score": hit.score, "id": str(hit.id), "document": hit.document}
            click.echo(json.dumps({**row, "text": hit.text}, ensure_ascii=False))
        return
    cells = [["score", "id", "document", "text"]]
    cells += [[f"{hit.score:.4f}", str(hit.id), hit.document, _one_line(hit.text)] for hit in hits]
    echo_table(cells, right=(0,))


def _one_line(text: str) -> str:
    """Return the beginning of a text on one line, without what would move a terminal's cursor."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * TEXT_CHARACTERS])
    return textwrap.shorten(printable, TEXT_CHARACTERS, placeholder="…")
