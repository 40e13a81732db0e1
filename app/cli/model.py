"""`nestvec model`: fetch models ahead of time."""

import click

from app.cli.flags import settings_flags
from app.logs import configure_logs
from app.main import prepare_model
from app.settings import Settings


@click.group("model")
def command() -> None:
    """Fetch models for hosts without a network."""


@command.command("pull")
@click.argument("name", required=False)
@settings_flags("model", "model_revision", "models_dir", "cache_dir", "offline", "log_level")
def pull(settings: Settings, name: str | None) -> None:
    """Fetch and export a model, so that `nestvec serve` needs no network.

    NAME is a card, a folder or a Hub id; the configured model if left out. Copy the cache folder to move it to
    another host.
    """
    configure_logs(level=settings.log_level, style="auto")
    chosen = settings.model_copy(update={"model": name}) if name else settings
    package = prepare_model(chosen, refresh=True)
    made = "exported" if package.is_new else "already exported"
    click.echo(
        f"{package.spec.name}: {package.spec.hidden_size} dimensions, {package.spec.max_tokens} tokens, "
        f"{made}\n  from  {package.spec.source}\n  graph {package.graph}\n  space {package.spec.space}"
    )
