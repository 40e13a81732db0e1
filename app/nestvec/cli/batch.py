"""`nestvec batch`: sends files of requests to a running server, watches them, and fetches the answers."""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import click
import httpx
from tqdm import tqdm

from nestvec.cli.server_flags import DEFAULT_URL, ServerAddress, server_flags
from nestvec.corpus.reading.records import Columns, Record
from nestvec.corpus.reading.sources import find_sources, read_sources
from nestvec.errors import NestvecError
from nestvec.jobs.types import ENDED

POLL_INTERVAL_S: Final = 1.0
TIMEOUT_S: Final = 60.0


class ServerError(NestvecError):
    """The server refused a request, or cannot be reached."""

    code = "server_error"


@click.group("batch")
@server_flags(help_of_url="The server.", default_url=DEFAULT_URL, takes_model=False)
@click.pass_context
def command(context: click.Context, *, server: ServerAddress) -> None:
    """Send files of requests to a running server, watch them, and fetch what they gave."""
    context.obj = server


@command.command("submit")
@click.argument("sources", nargs=-1, required=True)
@click.option("--model", help="Model to ask for; the server's default if left out.")
@click.option("--dimensions", type=click.IntRange(min=1), help="Keep so many values a vector.")
@click.option("--text-column", default="text", show_default=True, help="Column with the text.")
@click.option("--id-column", help="Column with the id, unique and of at most 64 characters.")
@click.option("--watch", "watches", is_flag=True, help="Wait for the end.")
@click.pass_context
def submit(  # noqa: PLR0913 - one argument a flag, as click passes them
    context: click.Context,
    *,
    sources: tuple[str, ...],
    model: str | None,
    dimensions: int | None,
    text_column: str,
    id_column: str | None,
    watches: bool,
) -> None:
    """Submit texts (as `nestvec embed` reads them), or one .jsonl file of ready requests; prints the batch's id."""
    with _connect(context.obj) as server, tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        inputs = find_sources(sources)
        if len(inputs) == 1 and _holds_requests(inputs[0].path):
            upload = inputs[0].path
        else:
            options = {"model": model, "dimensions": dimensions, "encoding_format": "base64"}
            body = {name: value for name, value in options.items() if value is not None}
            for record in read_sources(inputs, Columns(text_column, id_column)):
                file.write(_request(record, body))
            file.flush()
            upload = Path(file.name)
        with upload.open("rb") as content:
            files = {"file": ("requests.jsonl", content)}
            sent = server.post("/v1/files", data={"purpose": "batch"}, files=files, timeout=None)
        order = {"input_file_id": _json(sent)["id"], "endpoint": "/v1/embeddings"}
        batch = _json(server.post("/v1/batches", json=order))
        click.echo(batch["id"])
        if watches:
            _watch(server, batch["id"])


@command.command("list")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="List so many."
)
@click.option("--unfinished", is_flag=True, help="List only those that have not ended.")
@click.pass_context
def list_batches(context: click.Context, *, limit: int, unfinished: bool) -> None:
    """List the key's batches, newest first: id, status, requests done of all, refused ones, and when it was made."""
    with _connect(context.obj) as server:
        batches = _batches(server)
        shown = (batch for batch in batches if not unfinished or batch["status"] not in ENDED)
        for batch in islice(shown, limit):
            counts = batch["request_counts"]
            done = counts["completed"] + counts["failed"]
            made = datetime.fromtimestamp(batch["created_at"], UTC)
            click.echo(
                f"{batch['id']}  {batch['status']:<11}  {done}/{counts['total']}  "
                f"{counts['failed']} refused  {made:%Y-%m-%d %H:%M:%S} UTC"
            )


@command.command("watch")
@click.argument("batch_id")
@click.pass_context
def watch(context: click.Context, *, batch_id: str) -> None:
    """Wait for a batch's end, with a bar; the exit status is 1 unless it completed."""
    with _connect(context.obj) as server:
        _watch(server, batch_id)


@command.command("fetch")
@click.argument("batch_id")
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_context
def fetch(context: click.Context, *, batch_id: str, target: Path) -> None:
    """Download a batch's output to TARGET, and its errors beside it (TARGET.errors), if there are any."""
    with _connect(context.obj) as server:
        batch = _json(server.get(f"/v1/batches/{batch_id}"))
        if batch["status"] not in ENDED:
            raise ServerError(f"{batch_id} is {batch['status']}; it has no output yet")
        for file_id, path in (
            (batch["output_file_id"], target),
            (batch["error_file_id"], target.with_name(target.name + ".errors")),
        ):
            if file_id is not None:
                lines = _download(server, file_id, path)
                click.echo(f"{path}: {lines} lines")


@command.command("cancel")
@click.argument("batch_id")
@click.pass_context
def cancel(context: click.Context, *, batch_id: str) -> None:
    """Stop a batch; what is done is kept."""
    with _connect(context.obj) as server:
        click.echo(_json(server.post(f"/v1/batches/{batch_id}/cancel"))["status"])


@contextmanager
def _connect(address: ServerAddress) -> Iterator[httpx.Client]:
    """Open an HTTP client of the server.

    Raises:
        ServerError: The server cannot be reached.
    """
    headers = {"authorization": f"Bearer {address.key}"} if address.key else {}
    try:
        with httpx.Client(base_url=address.url, headers=headers, timeout=TIMEOUT_S) as client:
            yield client
    except httpx.HTTPError as error:
        raise ServerError(f"{address.url} cannot be reached ({error})") from error


def _batches(server: httpx.Client) -> Iterator[dict[str, Any]]:
    """All batches of the key, page by page.

    Raises:
        ServerError: The server refused a request.
    """
    after: dict[str, str] = {}
    while True:
        page = _json(server.get("/v1/batches", params={"limit": "100", **after}))
        yield from page["data"]
        if not page["has_more"]:
            return
        after = {"after": page["last_id"]}


def _holds_requests(path: Path) -> bool:
    """Whether a file holds ready requests, judged by its first line."""
    if path.suffix.lower() != ".jsonl":
        return False
    with path.open("rb") as file:
        first_line = file.readline(1 << 20)
    try:
        row = json.loads(first_line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and {"custom_id", "body"} <= row.keys()


def _request(record: Record, options: dict[str, Any]) -> bytes:
    """A line of a batch's input file that asks for the vector of a text."""
    row = {
        "custom_id": record.id,
        "method": "POST",
        "url": "/v1/embeddings",
        "body": {"input": record.text, **options},
    }
    return json.dumps(row).encode() + b"\n"


def _watch(server: httpx.Client, batch_id: str) -> None:
    """Show how far a batch is until it has ended; exits with 1 unless it completed."""
    with tqdm(unit="request", smoothing=0.05) as bar:
        while True:
            batch = _json(server.get(f"/v1/batches/{batch_id}"))
            counts = batch["request_counts"]
            bar.total = counts["total"] or None
            bar.update(counts["completed"] + counts["failed"] - bar.n)
            bar.set_postfix_str(batch["status"], refresh=True)
            if batch["status"] in ENDED:
                break
            time.sleep(POLL_INTERVAL_S)
    click.echo(f"{batch['status']}: {counts['completed']} answered, {counts['failed']} refused")
    for problem in (batch["errors"] or {"data": []})["data"]:
        where = "" if problem["line"] is None else f"line {problem['line']}: "
        click.echo(f"  {where}{problem['message']}", err=True)
    if batch["status"] != "completed":
        raise SystemExit(1)


def _download(server: httpx.Client, file_id: str, path: Path) -> int:
    """Stream a file to disk, where it gets its name once it is whole; gives the number of its lines."""
    draft, lines = path.with_name(path.name + ".part"), 0
    with (
        server.stream("GET", f"/v1/files/{file_id}/content") as answer,
        draft.open("wb") as file,
    ):
        if not answer.is_success:
            answer.read()
        _check(answer)
        for chunk in answer.iter_bytes():
            lines += chunk.count(b"\n")
            file.write(chunk)
    draft.replace(path)
    return lines


def _check(answer: httpx.Response) -> None:
    """Raise the error that an answer holds.

    Raises:
        ServerError: The server refused the request.
    """
    if not answer.is_success:
        try:
            reason = answer.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            reason = f"status {answer.status_code}"
        raise ServerError(reason)


def _json(answer: httpx.Response) -> dict[str, Any]:
    """The body of an answer.

    Raises:
        ServerError: The server refused the request.
    """
    _check(answer)
    body: dict[str, Any] = answer.json()
    return body
