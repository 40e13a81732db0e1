"""`nestvec serve`: bind, load in the background, serve, drain."""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from types import FrameType

import click
import uvicorn
from typing_extensions import override

from app.api.state import ApiState, Phase
from app.cli.flags import settings_flags
from app.errors import ConfigError
from app.logs import configure_logs, get_logger
from app.main import build_app
from app.settings import Settings

log = get_logger(__name__)

# Proxies keep connections for 60 s; ours must outlast theirs or requests meet a closing socket.
KEEP_ALIVE_S = 75
BACKLOG = 2048


class Server(uvicorn.Server):
    """uvicorn, with a drain that callers can see coming.

    SIGTERM: readiness off, serve on for the grace time so that balancers notice, then close the port and wait
    for what is in flight. SIGINT skips the grace. A second signal stops at once.
    """

    def __init__(self, config: uvicorn.Config, *, drain_grace_s: float) -> None:
        super().__init__(config)
        self.state: ApiState | None = None
        self._drain_grace_s = drain_grace_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_stopping = False

    @override
    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Run until stopped."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; not passed on, so that a clean stop exits with 0."""
        if self._is_stopping or self._loop is None:
            self.should_exit = self.force_exit = True
            return
        self._is_stopping = True
        grace_s = self._drain_grace_s if sig == signal.SIGTERM else 0.0
        self._loop.call_soon_threadsafe(self._drain, grace_s)

    def _drain(self, grace_s: float) -> None:
        log.info("draining", grace_s=grace_s)
        if self.state is not None:
            self.state.set_phase(Phase.DRAINING)
        asyncio.get_running_loop().call_later(grace_s, self._close)

    def _close(self) -> None:
        self.should_exit = True


@click.command("serve")
@settings_flags()
def command(settings: Settings) -> None:
    """Serve a model over HTTP.

    The first start fetches and exports the model; later ones need no network.
    """
    configure_logs(level=settings.log_level, style=settings.log_format)
    listener = bind(settings.host, settings.port)
    port = listener.getsockname()[1]
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{shown}:{port}"

    def on_ready(state: ApiState) -> None:
        server.state = state
        if state.phase is Phase.FAILED:
            server.should_exit = True
        elif state.phase is Phase.READY:
            # What was made until now lives as long as the process: the collector need not walk it again.
            gc.collect()
            gc.freeze()
            click.echo(banner(url, authenticated=bool(settings.secrets)))
            with contextlib.suppress(OSError):
                sys.stdout.flush()

    app = build_app(settings, on_ready=on_ready)
    server = Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=round(settings.drain_timeout_s),
            backlog=BACKLOG,
        ),
        drain_grace_s=settings.drain_grace_s,
    )
    server.state = app.state
    log.info("listening", url=url, model=settings.model)
    server.run(sockets=[listener])
    if app.state.phase is Phase.FAILED:
        sys.exit(1)


def bind(host: str, port: int) -> socket.socket:
    """Take the port.

    Raises:
        ConfigError: It is taken, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError([f"host: '{host}' is no address ({error.strerror})"]) from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigError(
            [f"port: cannot listen on {host}:{port} ({error.strerror}); choose another with --port"]
        ) from error
    return listener


def banner(url: str, *, authenticated: bool) -> str:
    """What a person needs once the server is ready."""
    key = " -H 'authorization: Bearer YOUR_KEY'" if authenticated else ""
    return (
        f"\nNestvec is ready: {url}\n\n"
        f"  curl {url}/v1/embeddings{key} -H 'content-type: application/json' \\\n"
        f'    -d \'{{"input": "Matryoshka dolls nest.", "dimensions": 8}}\'\n\n'
        f"  OpenAI clients: base_url={url}/v1   docs: {url}/docs   metrics: {url}/metrics\n"
    )
