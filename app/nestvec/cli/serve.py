"""`nestvec serve`: runs a server in one process, or in HTTP processes and engine processes."""

from typing import Final

import click

from nestvec.cli.flags import settings_flags
from nestvec.cli.settings_help import SettingsCommand
from nestvec.config.loading import check_to_serve
from nestvec.config.settings import PREFIX, Settings
from nestvec.observability.logs import configure_logs, get_logger
from nestvec.observability.tracing.environment import asks_for_traces
from nestvec.system.malloc import forbid_core_dumps
from nestvec.system.packages import imported_whole

log = get_logger(__name__)

SECRET_SETTINGS: Final = ("api_keys", "admin_keys")


@click.command("serve", cls=SettingsCommand)
@settings_flags()
def command(settings: Settings) -> None:
    """Serve a model over HTTP.

    The first start fetches and exports the model; later ones need no network.
    """
    check_to_serve(settings)
    configure_logs(level=settings.log_level, style=settings.log_format)
    flags, _ = settings.origin
    for name in SECRET_SETTINGS:
        if name in flags:
            log.warning(
                "key_on_command_line",
                flag=f"--{name.replace('_', '-')}",
                hint="every user of this machine can read it in the list of processes; set the variable "
                f"{PREFIX}{name.upper()}, api_keys_file or keys_file instead",
            )
    from nestvec.assembly.sources import check_sources

    check_sources(settings)
    if settings.drift_reference is not None:
        from nestvec.assembly.drift import read_reference

        # Here too: an HTTP process that ends for it would be started again and again.
        read_reference(settings)
    asks_for_traces()  # before any process is started: it says what is wrong with what is asked for
    forbid_core_dumps()
    if settings.http_processes:
        from nestvec.processes.supervisor import run_supervised

        run_supervised(settings)
        return
    with imported_whole():
        from nestvec.processes.single_process import run_single

    run_single(settings)
