"""The HTTP server: serves, and drains before it stops."""

import asyncio
import contextlib
import contextvars
import gc
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

import click
import uvicorn
from typing_extensions import override

from nestvec.api.request_context import RequestContextMiddleware
from nestvec.api.state import ApiState, Phase
from nestvec.config.memory_bounds import memory_bounds
from nestvec.config.settings import Settings
from nestvec.observability.logs import get_logger
from nestvec.processes.connections.guarded_protocol import bind_protocol, sweep_forever
from nestvec.processes.connections.limits import ConnectionLimits, allowed_connections
from nestvec.processes.event_loop_lag import measure_event_loop_lag
from nestvec.processes.listeners import BACKLOG
from nestvec.processes.memory_return import give_back_memory_forever

log = get_logger(__name__)

# Proxies keep connections for 60 s; ours must outlast theirs or requests meet a closing socket.
KEEP_ALIVE_S: Final = 75
# How long connections may take to send the request that was on its way when the port closed.
LAST_REQUESTS_S: Final = 0.25
# How long a thread may keep Python's global lock while the event loop wants it; Python's own 5 ms add up to seconds
# where several threads parse and tokenize.
SWITCH_INTERVAL_S: Final = 0.0005


class HttpServer(uvicorn.Server):
    """uvicorn, with a drain that callers can see coming.

    After SIGTERM readiness is off, and the server goes on for the grace time so that balancers notice; then it closes
    the port and waits for what is in flight. SIGINT skips the grace. A second signal stops the server at once. SIGHUP
    reads keys and aliases anew.

    Args:
        config: uvicorn's settings.
        state: The application's state, whose phase follows the server's.
        drain_grace_s: How long to serve on with readiness off after SIGTERM.
    """

    def __init__(self, config: uvicorn.Config, *, state: ApiState, drain_grace_s: float) -> None:
        super().__init__(config)
        self.state = state
        self._drain_grace_s = drain_grace_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_stopping = False
        self._listeners: list[socket.socket] = []

    @override
    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped, and watch the event loop and the connections meanwhile."""
        self._loop = asyncio.get_running_loop()
        self._listeners = list(sockets or [])
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._loop.add_signal_handler(signal.SIGHUP, self.state.reload)
        tasks = [
            asyncio.create_task(measure_event_loop_lag(self.state.metrics)),
            asyncio.create_task(give_back_memory_forever()),
            asyncio.create_task(sweep_forever(lambda: self.server_state.connections)),
        ]
        try:
            await super().serve(sockets)
        finally:
            for task in tasks:
                task.cancel()

    async def listen(self, sockets: list[socket.socket]) -> None:
        """Begin to take connections, where the server was started with no sockets."""
        if self.should_exit or self._is_stopping:
            return
        self._listeners = sockets
        loop, backlog = asyncio.get_running_loop(), self.config.backlog
        for listener in sockets:
            server = await loop.create_server(self._create_protocol, sock=listener, backlog=backlog)
            self.servers.append(server)

    def _create_protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop, or stop at once at the second signal.

        The signal is not passed on to uvicorn, so that a clean stop exits with 0.
        """
        if self._is_stopping or self._loop is None:
            self.should_exit = self.force_exit = True
            return
        self._is_stopping = True
        grace_s = self._drain_grace_s if sig == signal.SIGTERM else 0.0
        # The signal came in the middle of some request, whose id the log lines of the drain would bear.
        self._loop.call_soon_threadsafe(self._drain, grace_s, context=contextvars.Context())

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the ports, answer what was sent before that, and end all connections.

        A caller that is connected when the port closes has its request on the way, and cannot know that nobody reads
        it. So connections that wait to be accepted are accepted first, and all have a moment to send their request.
        """
        waiting = [connection for listener in self._listeners for connection in _accepted(listener)]
        for server in self.servers:
            server.close()
        for listener in self._listeners:
            listener.close()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            with contextlib.suppress(OSError):  # its caller has left
                await loop.connect_accepted_socket(self._create_protocol, connection)
        if self.server_state.connections and not self.force_exit:
            await asyncio.sleep(LAST_REQUESTS_S)
        await super().shutdown(sockets)

    def _drain(self, grace_s: float) -> None:
        log.info("draining", grace_s=grace_s)
        self.state.set_phase(Phase.DRAINING)
        asyncio.get_running_loop().call_later(grace_s, self._close)

    def _close(self) -> None:
        self.should_exit = True


def _accepted(listener: socket.socket) -> Iterator[socket.socket]:
    """Accept all connections that wait for it."""
    listener.setblocking(False)  # noqa: FBT003 - the library's own
    with contextlib.suppress(OSError):  # BlockingIOError: none waits any more
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)  # noqa: FBT003
            yield connection


def make_server(app: RequestContextMiddleware, settings: Settings) -> HttpServer:
    """Make the server of an application, with the settings' bounds on connections."""
    limits = ConnectionLimits(
        max_connections=allowed_connections(memory_bounds(settings).connections),
        max_header_bytes=settings.max_header_bytes,
        header_timeout_s=settings.header_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        min_bytes_per_s=settings.min_bytes_per_s,
    )
    config = uvicorn.Config(
        app,
        http=bind_protocol(limits, app.state.metrics.http, app.state.body_memory),
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
    return HttpServer(config, state=app.state, drain_grace_s=settings.drain_grace_s)


def announce_when_ready(
    url: str, stop: Callable[[], None], *, authenticated: bool
) -> Callable[[ApiState], None]:
    """Make a callback that says once the engine is ready, or stops the server where it has failed.

    A person at a terminal gets the banner; elsewhere an event is logged, as what reads logs wants nothing else.

    Args:
        url: Where the server is reached.
        stop: Stops the server.
        authenticated: Whether callers need a key.
    """

    def on_ready(state: ApiState) -> None:
        if state.phase is Phase.FAILED:
            stop()
        elif state.phase is Phase.READY:
            # What exists now lives as long as the process: the collector need not walk it again.
            gc.collect()
            gc.freeze()
            if sys.stdout.isatty():
                click.echo(banner(url, authenticated=authenticated))
            else:
                log.info("ready", url=url, authenticated=authenticated)

    return on_ready


def banner(url: str, *, authenticated: bool) -> str:
    """The text that tells a person at a terminal how to use the server."""
    key_option = " -H 'authorization: Bearer YOUR_KEY'" if authenticated else ""
    return (
        f"\nNestvec is ready: {url}\n\n"
        f"  curl {url}/v1/embeddings{key_option} -H 'content-type: application/json' \\\n"
        f'    -d \'{{"input": "Matryoshka dolls nest.", "dimensions": 8}}\'\n\n'
        f"  OpenAI clients: base_url={url}/v1   docs: {url}/docs   metrics: {url}/metrics\n"
    )
