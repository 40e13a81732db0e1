"""The ports of a server, bound before anything that answers on them is imported."""

import socket
from typing import Final

from nestvec.config.settings import Settings
from nestvec.errors import ConfigError

BACKLOG: Final = 2048
# Where this machine reaches a server that listens on all of its addresses, which are none to connect to.
LOOPBACK_OF: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound here


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket to an address and a port.

    Raises:
        ConfigError: The port is taken, or the address is not one of this machine.
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
    """Bind the common port, and after it the operators' port where they have one of their own.

    Raises:
        ConfigError: A port is taken, or an address is not one of this machine.
    """
    listeners = [bind(settings.host, settings.port)]
    if settings.operations_port:
        host = settings.operations_host or settings.host
        listeners.append(bind(host, settings.operations_port))
    return listeners


def operations_port_of(listeners: list[socket.socket]) -> int:
    """The operators' own port, where `bind_all` has bound one; 0 where it has not."""
    return int(listeners[1].getsockname()[1]) if len(listeners) > 1 else 0


def url_of(listener: socket.socket, host: str) -> str:
    """The URL under which a listener is reached, from this machine where it listens on all addresses."""
    host = LOOPBACK_OF.get(host, host)
    url_host = f"[{host}]" if ":" in host else host
    return f"http://{url_host}:{listener.getsockname()[1]}"
