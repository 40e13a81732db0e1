"""The HTTP server: bind, serve, drain."""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final

import click
import uvicorn
from typing_extensions import override

from nestvec.api.request_context import RequestContext
from nestvec.api.state import ApiState, Phase
from nestvec.config.settings import Settings
from nestvec.errors import ConfigError
from nestvec.observability.logs import get_logger
from nestvec.processes.event_loop_lag import watch_loop
from nestvec.processes.guarded_protocol import (
    ConnectionLimits,
    guarded,
    most_connections,
    sweep_forever,
)

log = get_logger(__name__)

# Proxies keep connections for 60 s; ours must outlast theirs or requests meet a closing socket.
KEEP_ALIVE_S: Final = 75
BACKLOG: Final = 2048


class Server(uvicorn.Server):
    """uvicorn, with a drain that callers can see coming.

    SIGTERM: readiness off, serve on for the grace time so that balancers notice, then close the port and wait
    for what is in flight. SIGINT skips the grace. A second signal stops at once. SIGHUP reads keys and aliases anew.
    """

    def __init__(self, config: uvicorn.Config, *, state: ApiState, drain_grace_s: float) -> None:
        super().__init__(config)
        self.state = state
        self._drain_grace_s = drain_grace_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_stopping = False

    @override
    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Run until stopped."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGHUP, self.state.reload)
        watching = [
            asyncio.create_task(watch_loop(self.state.metrics)),
            asyncio.create_task(sweep_forever(lambda: self.server_state.connections)),
        ]
        try:
            await super().serve(sockets)
        finally:
            for task in watching:
                task.cancel()

    async def listen(self, sockets: list[socket.socket]) -> None:
        """Begin to take connections: where it was started with none to listen on."""
        config, loop = self.config, asyncio.get_running_loop()
        if self.should_exit or self._is_stopping:
            return

        def create_protocol() -> asyncio.Protocol:
            protocol: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return protocol

        for one in sockets:
            made = await loop.create_server(create_protocol, sock=one, backlog=config.backlog)
            self.servers.append(made)

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
        self.state.set_phase(Phase.DRAINING)
        asyncio.get_running_loop().call_later(grace_s, self._close)

    def _close(self) -> None:
        self.should_exit = True


def make_server(app: RequestContext, settings: Settings) -> Server:
    """A server of an application, with the settings' bounds on connections."""
    limits = ConnectionLimits(
        max_connections=most_connections(settings.max_connections),
        max_header_bytes=settings.max_header_bytes,
        header_timeout_s=settings.header_timeout_s,
        min_bytes_per_s=settings.min_bytes_per_s,
    )
    config = uvicorn.Config(
        app,
        http=guarded(limits, app.state.metrics),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=round(settings.drain_timeout_s),
        backlog=BACKLOG,
    )
    return Server(config, state=app.state, drain_grace_s=settings.drain_grace_s)


def when_ready(
    url: str, stop: Callable[[], None], *, authenticated: bool
) -> Callable[[ApiState], None]:
    """What is done once the engine is there: the banner; or has failed: the end."""

    def on_ready(state: ApiState) -> None:
        if state.phase is Phase.FAILED:
            stop()
        elif state.phase is Phase.READY:
            # What was made until now lives as long as the process: the collector need not walk it again.
            gc.collect()
            gc.freeze()
            click.echo(banner(url, authenticated=authenticated))
            with contextlib.suppress(OSError):
                sys.stdout.flush()

    return on_ready


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


def bind_all(settings: Settings) -> list[socket.socket]:
    """The port, and behind it that of the operators where they have one of their own.

    Raises:
        ConfigError: One is taken, or an address is not one of this machine.
    """
    found = [bind(settings.host, settings.port)]
    if settings.operations_port:
        host = settings.operations_host or settings.host
        found.append(bind(host, settings.operations_port))
    return found


def operations_port_of(listeners: list[socket.socket]) -> int:
    """The operators' own port among those that were bound; 0 for none."""
    return int(listeners[1].getsockname()[1]) if len(listeners) > 1 else 0


def url_of(listener: socket.socket, host: str) -> str:
    """Where a listener is reached."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


def banner(url: str, *, authenticated: bool) -> str:
    """What a person needs once the server is ready."""
    key = " -H 'authorization: Bearer YOUR_KEY'" if authenticated else ""
    return (
        f"\nNestvec is ready: {url}\n\n"
        f"  curl {url}/v1/embeddings{key} -H 'content-type: application/json' \\\n"
        f'    -d \'{{"input": "Matryoshka dolls nest.", "dimensions": 8}}\'\n\n'
        f"  OpenAI clients: base_url={url}/v1   docs: {url}/docs   metrics: {url}/metrics\n"
    )
