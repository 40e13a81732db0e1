"""`nestvec cache`: shows and tidies the folder of fetched models and exported graphs."""

import json
import time
from typing import Final

import click

from nestvec.cli.flags import settings_flags
from nestvec.cli.tables import bytes_text, echo_table
from nestvec.config.settings import Settings
from nestvec.model_store.inventory import CacheEntry, CacheKind, list_cache, remove_entry

MAX_NAME_CHARS: Final = 48


@click.group("cache")
def command() -> None:
    """The folder of fetched models and exported graphs (cache_dir): what is in it, and what can go."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_flags("cache_dir")
def list_entries(settings: Settings, *, as_json: bool) -> None:
    """List what the cache holds, the largest first, and for how long nothing has used it."""
    entries, now_s = list_cache(settings.cache_dir), time.time()
    if as_json:
        content = [
            {
                "kind": entry.kind,
                "model": entry.name,
                "detail": entry.detail,
                "path": str(entry.paths[0]),
                "bytes": entry.size_bytes,
                "unused_days": round(entry.unused_days(now_s), 2),
            }
            for entry in entries
        ]
        click.echo(json.dumps(content, indent=1))
        return
    rows = [("SIZE", "KIND", "MODEL", "DETAIL", "UNUSED FOR")]
    for entry in entries:
        days = f"{int(entry.unused_days(now_s))} days"
        name = entry.name[:MAX_NAME_CHARS]
        rows.append((bytes_text(entry.size_bytes), entry.kind, name, entry.detail, days))
    echo_table(rows, right=(0, 4))
    total = sum(entry.size_bytes for entry in entries)
    click.echo(f"{bytes_text(total)} in {settings.cache_dir}")


@command.command("prune")
@click.option(
    "--unused-days",
    type=click.FloatRange(min=0),
    help="Also remove what nothing has used for so many days.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@settings_flags("cache_dir")
def prune(settings: Settings, *, unused_days: float | None, dry_run: bool) -> None:
    """Remove what is of no use: drafts of killed processes, exports that are damaged or of an old format.

    Nothing else goes unless --unused-days says so. A removed model is fetched and exported again when it is served.
    """
    now_s = time.time()

    def goes(entry: CacheEntry) -> bool:
        is_old = unused_days is not None and entry.unused_days(now_s) >= unused_days
        return entry.kind is CacheKind.LEFTOVER or is_old

    entries = [entry for entry in list_cache(settings.cache_dir) if goes(entry)]
    for entry in entries:
        click.echo(f"{bytes_text(entry.size_bytes):>8}  {entry.kind:<8}  {entry.name}")
        if not dry_run:
            remove_entry(entry, settings.cache_dir)
    freed = bytes_text(sum(entry.size_bytes for entry in entries))
    click.echo(f"{freed} {'would be freed' if dry_run else 'freed'} in {settings.cache_dir}")
