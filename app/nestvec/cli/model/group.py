"""The verbs of `nestvec model`; `pull` fetches a model ahead of time."""

import click

from nestvec.assembly.package import prepare_model
from nestvec.cli.calibrate import command as calibrate
from nestvec.cli.flags import settings_flags
from nestvec.cli.model.check import check
from nestvec.cli.model.fit import apply, fit
from nestvec.cli.model.importing import import_words
from nestvec.cli.model.listing import list_models, remove, show, usage
from nestvec.cli.model.merge import export, merge
from nestvec.cli.model.prune import prune
from nestvec.config.settings import Settings
from nestvec.observability.logs import configure_logs


@click.group("model")
def command() -> None:
    """List, fetch, import, check, calibrate, merge, prune and remove models; fit maps of vectors."""


command.add_command(list_models)
command.add_command(show)
command.add_command(calibrate)
command.add_command(check)
command.add_command(merge)
command.add_command(export)
command.add_command(fit)
command.add_command(import_words)
command.add_command(prune)
command.add_command(apply)
command.add_command(remove)
command.add_command(usage)


@command.command("pull")
@click.argument("name", required=False)
@click.option("--folder", is_flag=True, help="Print nothing but the folder of the model's files.")
@click.option(
    "--if-missing",
    is_flag=True,
    help="Ask no source for what the cache has, as `nestvec serve` does.",
)
@settings_flags(
    *("model", "model_revision", "models_dir", "cache_dir", "offline", "read_pickles", "log_level"),
    *("picture_model", "precision", "calibration_file", "weight_storage", "provider", "device_id"),
)
def pull(settings: Settings, *, name: str | None, folder: bool, if_missing: bool) -> None:
    """Fetch and export a model, so that `nestvec serve` needs no network.

    NAME is a card, a folder or a Hub id; the configured model if left out. Copy the cache folder to move it to
    another host.
    """
    configure_logs(level=settings.log_level, style="auto")
    if name:
        settings = settings.model_copy(update={"model": name})
    package = prepare_model(settings, refresh=not if_missing)
    if folder:
        click.echo(str(package.folder.tokenizer_path.parent))
        return
    state = "exported" if package.is_new else "already exported"
    click.echo(
        f"{package.spec.name}: {package.spec.hidden_size} dimensions, {package.spec.max_tokens} tokens, "
        f"{state}\n  from  {package.spec.source}\n  graph {package.graph}\n  space {package.spec.space}"
    )
