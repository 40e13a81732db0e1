"""`nestvec model merge` and `nestvec model export`: make new checkpoints from others."""

from pathlib import Path
from typing import Final

import click

from nestvec.assembly.sources import source_options
from nestvec.cli.flags import settings_flags
from nestvec.config.settings import Settings
from nestvec.errors import ConfigError
from nestvec.model_store.sources.adapters import TASK_PREFIX, merge_adapter, merge_task
from nestvec.model_store.sources.fetch import fetch
from nestvec.model_store.sources.merging import merge_models
from nestvec.observability.logs import configure_logs

SOURCE_SETTINGS: Final = ("model_revision", "models_dir", "cache_dir", "offline", "log_level")


@click.command("merge")
@click.argument("models", nargs=-1, required=True)
@click.option("--weights", metavar="A,B", help="One for each model; alike by default.")
@click.option(
    "--method",
    type=click.Choice(["average", "slerp"]),
    default="average",
    show_default=True,
    help="Of each tensor: the weighted mean, or along the arc between two.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder.")
@settings_flags(*SOURCE_SETTINGS)
def merge(
    settings: Settings, *, models: tuple[str, ...], weights: str | None, method: str, out: Path
) -> None:
    """Write a model between MODELS, which must be of one architecture and tokenizer.

    The folder can be served like any other: `nestvec serve --model OUT`. Its vectors are a space of their own.
    """
    configure_logs(level=settings.log_level, style="auto")
    options = source_options(settings)
    shares = _numbers(weights) if weights is not None else [1.0] * len(models)
    folders = [fetch(model, options).folder for model in models]
    count = merge_models(folders, shares, out, method=method)
    click.echo(f"{count} tensors of {len(folders)} models merged into {out}")


@click.command("export")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--adapter",
    required=True,
    metavar="DIR",
    help="Folder of a LoRA adapter, as PEFT writes it; or task:NAME of one that the model brings along.",
)
@settings_flags("model", *SOURCE_SETTINGS)
def export(settings: Settings, *, out: Path, adapter: str) -> None:
    """Write the model to OUT with an adapter merged into its weights.

    The folder can be served like any other: `nestvec serve --model OUT`. Its vectors are a space of their own.
    """
    configure_logs(level=settings.log_level, style="auto")
    folder = fetch(settings.model, source_options(settings)).folder
    if adapter.startswith(TASK_PREFIX):
        count = merge_task(folder, adapter.removeprefix(TASK_PREFIX), out)
    elif Path(adapter).is_dir():
        count = merge_adapter(folder, Path(adapter), out)
    else:
        raise click.BadParameter(f"'{adapter}' is no folder", param_hint="--adapter")
    name = Path(adapter).name
    click.echo(f"{count} layers of {settings.model} changed by {name}, written to {out}")


def _numbers(text: str) -> list[float]:
    """Read a comma-separated list of numbers.

    Raises:
        ConfigError: Something in it is no number.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(["weights: must be numbers, comma-separated"]) from None
