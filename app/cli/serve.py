"""`nestvec serve`: one process, or HTTP processes over the engine's own."""

import click

from app.cli.flags import settings_flags
from app.logs import configure_logs
from app.memory import forbid_core_dumps
from app.settings import Settings


@click.command("serve")
@settings_flags()
def command(settings: Settings) -> None:
    """Serve a model over HTTP.

    The first start fetches and exports the model; later ones need no network.
    """
    configure_logs(level=settings.log_level, style=settings.log_format)
    forbid_core_dumps()
    if settings.http_processes:
        from app.serving.supervisor import run_supervised

        run_supervised(settings)
        return
    from app.serving.single import run_single

    run_single(settings)
