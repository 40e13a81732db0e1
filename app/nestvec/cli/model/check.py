"""`nestvec model check`: what of a model's files is honoured, and what is refused, field by field."""

import sys

import click

from nestvec.assembly.sources import source_options
from nestvec.cli.flags import settings_flags
from nestvec.cli.model.merge import SOURCE_SETTINGS
from nestvec.config.settings import Settings
from nestvec.model_store.folder.claims import FolderClaim, Verdict
from nestvec.model_store.folder.gate import folder_claims
from nestvec.model_store.sources.fetch import fetch
from nestvec.observability.logs import configure_logs


@click.command("check")
@click.argument("model")
@click.option("--all", "shows_all", is_flag=True, help="Show fields without effect, too.")
@settings_flags(*SOURCE_SETTINGS)
def check(settings: Settings, *, model: str, shows_all: bool) -> None:
    """Say what becomes of every field in a model's files, without serving it.

    MODEL is a folder, a card or a Hub id. The exit status is 1 where a field is refused.
    """
    configure_logs(level=settings.log_level, style="auto")
    fetched = fetch(model, source_options(settings))
    card = fetched.card
    claims = folder_claims(
        fetched.folder, card.overrides, card.config, reads_pickles=settings.read_pickles
    )
    for claim in claims:
        if shows_all or claim.verdict is not Verdict.WITHOUT_EFFECT:
            click.echo(_row(claim))
    counts = [f"{sum(c.verdict is verdict for c in claims)} {verdict}" for verdict in Verdict]
    click.echo(", ".join(counts))
    if any(claim.verdict is Verdict.REFUSED for claim in claims):
        sys.exit(1)


def _row(claim: FolderClaim) -> str:
    where = f"{claim.file}: {claim.field} = {claim.value}" if claim.field else "(the folder)"
    return f"{claim.verdict:<14}  {where}" + (f"\n{'':<16}{claim.reason}" if claim.reason else "")
