"""`nestvec serve`: runs a server in one process, or in HTTP processes and engine processes."""

import click

from nestvec.cli.flags import settings_flags
from nestvec.config.settings import Settings
from nestvec.observability.logs import configure_logs
from nestvec.system.malloc import forbid_core_dumps


@click.command("serve")
@settings_flags()
def command(settings: Settings) -> None:
    """Serve a model over HTTP.

    The first start fetches and exports the model; later ones need no network.
    """
    configure_logs(level=settings.log_level, style=settings.log_format)
    forbid_core_dumps()
    if settings.http_processes:
        from nestvec.processes.supervisor import run_supervised

        run_supervised(settings)
        return
    from nestvec.processes.single_process import run_single

    run_single(settings)
