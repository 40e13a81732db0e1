"""`nestvec tune`: finds how the model runs fastest on this machine."""

import click

from nestvec.cli.flags import settings_flags
from nestvec.config.settings import Settings
from nestvec.observability.logs import configure_logs
from nestvec.tools.commands import tune_model
from nestvec.tools.tuning.report import tuning_table


@click.command("tune")
@click.option(
    "--limit-s",
    type=click.FloatRange(min=1.0),
    default=45.0,
    show_default=True,
    help="Time to spend on measuring; opening graphs comes on top.",
)
@click.option(
    "--compare/--no-compare",
    default=True,
    help="Also export and time the other precisions that this machine can run.",
)
@settings_flags(
    *("model", "model_revision", "models_dir", "cache_dir", "offline", "log_level"),
    *("precision", "calibration_file", "weight_storage", "provider", "device_id"),
    *("gpu_memory_utilization", "gpu_captured_tokens"),
)
def command(settings: Settings, *, limit_s: float, compare: bool) -> None:
    """Measure this machine and keep what is fastest; `nestvec serve` then uses it.

    Run it on an idle machine of the kind that will serve. The result lies beside the exported graph and holds for
    this CPU, its number of cores, and the installed versions; on a GPU for that kind of GPU.
    """
    configure_logs(level=settings.log_level, style="auto")
    click.echo(tuning_table(tune_model(settings, limit_s=limit_s, compares=compare)))
