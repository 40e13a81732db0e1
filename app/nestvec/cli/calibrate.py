"""`nestvec calibrate [TEXTS] [--pictures FOLDER]`: sets the ranges of a model's 8-bit vectors."""

from pathlib import Path

import click

from nestvec.cli.flags import settings_flags
from nestvec.config.settings import Settings
from nestvec.observability.logs import configure_logs
from nestvec.tools.commands import calibrate_model


@click.command("calibrate")
@click.argument(
    "texts", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--pictures",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Ranges hold the vectors of these pictures too, for models that take them; a few hundred do.",
)
@settings_flags(
    *("model", "model_revision", "models_dir", "cache_dir", "offline", "log_level"),
    *("precision", "calibration_file", "weight_storage", "provider", "device_id"),
)
def command(settings: Settings, *, texts: Path | None, pictures: Path | None) -> None:
    """Set the ranges of int8 and uint8 vectors by the vectors of TEXTS, one a line; about a thousand do.

    One index has texts and pictures in the same ranges: with --pictures they hold both. Without TEXTS go back to the
    bundled ones, by which every model is calibrated at its first start. Servers take new ranges at their next start.
    Codes of other ranges must not be mixed: vectors stored as int8 or uint8 have to be made anew, and answers name the
    ranges in x-embed-quantization.
    """
    configure_logs(level=settings.log_level, style="auto")
    result = calibrate_model(settings, texts, pictures)
    click.echo(
        f"{result.texts} texts; {result.clipped_before:.3%} of their values were outside the earlier ranges"
    )
    if result.pictures:
        click.echo(
            f"{result.pictures} pictures; {result.clipped_pictures:.3%} of their values were outside"
        )
    click.echo(f"  quantization {result.quantizer.id}")
