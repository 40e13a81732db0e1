"""`nestvec keys`: makes, lists, rotates and revokes API keys with limits."""

import time
from typing import Final

import click

from nestvec.assembly.usage import usage_of_month
from nestvec.cli.flags import settings_flags
from nestvec.cli.tables import echo_table
from nestvec.config.settings import Settings
from nestvec.keys.key_file_watch import MARKER_NAME, KeysMarker, problems_at_start
from nestvec.keys.records import KeyFile, KeyLimits, KeyRecord, edit_key_file

HOUR_S: Final = 3600.0
MAX_NAME_CHARS: Final = 200


@click.group("keys")
def command() -> None:
    """API keys with limits: who may call, which models, how much.

    A running server takes changes over by itself within two seconds.
    """


@command.command("add")
@click.argument("name")
@click.option(
    "--model", "models", multiple=True, help="A model that it may use; repeat; none: all."
)
@click.option("--requests-per-s", type=click.FloatRange(min=0.001), help="Most requests a second.")
@click.option("--tokens-per-min", type=click.IntRange(min=1), help="Most tokens a minute.")
@click.option("--monthly-tokens", type=click.IntRange(min=1), help="Most tokens a calendar month.")
@click.option("--bulk-only", is_flag=True, help="Its requests never pass those of other keys.")
@click.option("--admin", "is_admin", is_flag=True, help="It may load and unload models (/admin).")
@settings_flags("keys_file", "data_dir")
def add(  # noqa: PLR0913, PLR0917 - a flag each
    settings: Settings,
    name: str,
    models: tuple[str, ...],
    requests_per_s: float | None,
    tokens_per_min: int | None,
    monthly_tokens: int | None,
    bulk_only: bool,  # noqa: FBT001 - click passes flags by name
    is_admin: bool,  # noqa: FBT001 - click passes flags by name
) -> None:
    """Make a key for NAME and print it: it is shown this once and kept nowhere."""
    if not name.isprintable() or len(name) > MAX_NAME_CHARS:
        raise click.UsageError(f"NAME must be at most {MAX_NAME_CHARS} printable characters")
    limits = KeyLimits(models, requests_per_s, tokens_per_min, monthly_tokens, bulk_only)
    with edit_key_file(settings.keys_path) as file:
        is_first = not file.records
        record, key = file.add(name, limits, is_admin=is_admin)
    KeysMarker((settings.data_dir,)).set()
    click.echo(key)
    click.echo(f"key {record.id} for {name}, in {settings.keys_path}", err=True)
    if is_first:
        click.echo("from now on the server asks every caller for a key", err=True)


@command.command("list")
@settings_flags("keys_file", "data_dir")
def list_keys(settings: Settings) -> None:
    """Show all keys, their limits, and what they have used this month."""
    records = KeyFile.read(settings.keys_path).records.values()
    if not records:
        is_named = settings.keys_file is not None
        problems = problems_at_start(
            settings.keys_path, is_named=is_named, data_dir=settings.data_dir
        )
        click.echo("; ".join(problems) or f"no keys in {settings.keys_path}", err=True)
        return
    month = time.strftime("%Y-%m", time.gmtime())
    used = usage_of_month(settings, month)
    rows = [("ID", "NAME", "STATE", "LIMITS", f"REQUESTS {month}", f"TOKENS {month}")]
    for record in records:
        requests, tokens = used.get(record.id, (0, 0))
        state = "revoked" if record.revoked_s is not None else "good"
        rows.append((record.id, record.name, state, _limits(record), str(requests), str(tokens)))
    echo_table(rows)


@command.command("revoke")
@click.argument("key")
@settings_flags("keys_file", "data_dir")
def revoke(settings: Settings, key: str) -> None:
    """Let KEY, an id or a name, be good no more."""
    with edit_key_file(settings.keys_path) as file:
        record = file.revoke(key)
    click.echo(f"key {record.id} ({record.name}) is revoked", err=True)
    if all(other.revoked_s is not None for other in file.records.values()):
        click.echo(
            "no key is good now: the server lets nobody in. To open it, remove "
            f"{settings.keys_path} and {settings.data_dir / MARKER_NAME}, and restart it",
            err=True,
        )


@command.command("rotate")
@click.argument("key")
@click.option(
    "--overlap-h",
    type=click.FloatRange(min=0),
    default=24.0,
    show_default=True,
    help="Hours for which the old secret stays good.",
)
@settings_flags("keys_file", "data_dir")
def rotate(settings: Settings, key: str, overlap_h: float) -> None:
    """Make a new secret for KEY, an id or a name, with the same limits and usage, and print it."""
    with edit_key_file(settings.keys_path) as file:
        record, new_key = file.rotate(key, overlap_h * HOUR_S)
    click.echo(new_key)
    click.echo(
        f"the old secret of {record.id} ({record.name}) is good for {overlap_h:g} h", err=True
    )


def _limits(record: KeyRecord) -> str:
    """The limits and rights of a key, as a list for people."""
    limits = record.limits
    descriptions = [
        f"models={','.join(limits.models)}" if limits.models else "",
        f"{limits.requests_per_s:g} requests/s" if limits.requests_per_s is not None else "",
        f"{limits.tokens_per_min} tokens/min" if limits.tokens_per_min is not None else "",
        f"{limits.monthly_tokens} tokens/month" if limits.monthly_tokens is not None else "",
        "bulk only" if limits.is_bulk_only else "",
        "admin" if record.is_admin else "",
    ]
    return ", ".join(filter(None, descriptions)) or "none"
