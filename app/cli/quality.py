"""`nestvec quality`: the figures of a running server on standard sets."""

from pathlib import Path

import click
from tqdm import tqdm

from app.errors import ConfigError
from app.quality.report import RemoteEmbedder, Row, markdown, run_pairs, run_retrieval
from app.quality.tasks import read_pairs, read_retrieval

DEFAULT_SIZES = "384,256,128,64,32"


@click.command("quality")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The server.")
@click.option(
    "--api-key", envvar="NESTVEC_CLIENT_KEY", default="", help="Its key, if it asks for one."
)
@click.option("--model", default="", help="Model to ask for; the only one if left out.")
@click.option("--sts", type=click.Path(path_type=Path), help="File of score, text, text lines.")
@click.option("--retrieval", type=click.Path(path_type=Path), help="Folder in BEIR's layout.")
@click.option("--dimensions", default=DEFAULT_SIZES, show_default=True, help="Sizes for --sts.")
def command(
    *, url: str, api_key: str, model: str, sts: Path | None, retrieval: Path | None, dimensions: str
) -> None:
    """Measure a running server: Spearman on sentence pairs, nDCG@10 on retrieval by each dtype."""
    if sts is None and retrieval is None:
        raise ConfigError(["name --sts FILE, --retrieval FOLDER, or both"])
    try:
        sizes = [int(size) for size in dimensions.split(",")]
    except ValueError as error:
        raise ConfigError([f"--dimensions: '{dimensions}' is no list of numbers"]) from error
    rows: list[Row] = []
    with (
        tqdm(unit="text") as bar,
        RemoteEmbedder(url, key=api_key, model=model, progress=bar.update) as embedder,
    ):
        if sts is not None:
            pairs = read_pairs(sts)
            bar.total = 2 * len(pairs.gold) * len(sizes)
            rows += run_pairs(embedder, pairs, sizes)
        if retrieval is not None:
            task = read_retrieval(retrieval)
            bar.total = (bar.total or 0) + len(task.documents) + len(task.queries)
            rows += run_retrieval(embedder, task, None)
    click.echo(markdown(rows))
