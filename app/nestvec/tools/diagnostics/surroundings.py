"""What a start meets: the port, the data folder, a container's limits, memory, the cache, the network, extras."""

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from nestvec.jobs.folder_lock import LOCK
from nestvec.model_store.inventory import CacheKind, entries_of, list_cache
from nestvec.model_store.sources.card import Card, CardSource, find_card
from nestvec.model_store.sources.fetch import SourceOptions
from nestvec.system.cpus import usable_cpus
from nestvec.system.extras import how_to_install
from nestvec.system.file_locks import try_lock
from nestvec.system.memory import resident_bytes, usable_memory_bytes
from nestvec.system.packages import installed_version
from nestvec.tools.diagnostics.checks import Check, Health

MB: Final = 10**6
CONNECT_TIMEOUT_S: Final = 3.0
# What a server takes beside a model's weights: libraries, the interpreter, tokenizers, activations.
SERVER_BYTES: Final = 300 * MB
# Weights while a graph is opened, as a multiple of the file: the file and what the runtime makes of it.
OPENING_FACTOR: Final = 2.0
BYTES_PER_PARAMETER: Final = 4
PROXIES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
HUB_VARIABLE: Final = "HF_ENDPOINT"
EXTRA: Final = re.compile(r"""^([\w.-]+).*;.*\bextra\s*==\s*['"]([\w-]+)['"]""")
Connect = Callable[[str, int], None]


def check_port(host: str, port: int) -> Check:
    """Check whether the server could listen."""
    if port == 0:
        return Check("port", Health.OK, "a free one is taken")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        advice = "unless that is your server: stop it (`ss -ltnp` names it), or choose another with --port"
        return Check("port", Health.WARNING, f"{host}:{port}: {error.strerror or error}", advice)
    return Check("port", Health.OK, f"{host}:{port} is free")


def check_data_lock(data_dir: Path) -> Check:
    """Check whether another server has the data folder."""
    try:
        with (data_dir / LOCK).open("rb") as lock:
            is_free = try_lock(lock)
    except FileNotFoundError:
        return Check("data folder", Health.OK, "nobody has used the data folder yet")
    except OSError as error:
        return Check("data folder", Health.WARNING, f"{data_dir}: {error.strerror or error}")
    if not is_free:
        advice = "stop it, or give this one a folder of its own (--data-dir): without it files and batches are off"
        return Check("data folder", Health.WARNING, f"another server uses {data_dir}", advice)
    return Check("data folder", Health.OK, f"no other server uses {data_dir}")


def check_container() -> Check:
    """Tell what a control group leaves of the machine."""
    scheduled = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cpus, memory = usable_cpus(), usable_memory_bytes()
    parts = []
    if scheduled is not None and cpus < scheduled:
        parts.append(f"{cpus} of {scheduled} CPUs by its quota")
    if memory < machine:
        parts.append(f"{memory / MB:,.0f} of {machine / MB:,.0f} MB of memory")
    return Check("container", Health.OK, "; ".join(parts) or "no limit of CPUs or memory")


def check_model(
    model: str, options: SourceOptions, *, available_bytes: int | None = None
) -> Iterator[Check]:
    """Check whether the model is on this disk, and whether there is memory for it.

    Args:
        model: The model of the settings.
        options: Where models come from.
        available_bytes: Memory that is free; None asks the system.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        weights = sum(file.stat().st_size for file in folder.glob("**/*.safetensors"))
        yield Check("model files", Health.OK, f"{folder}: {weights / MB:,.0f} MB of weights")
        yield _memory(weights, available_bytes)
        return
    card = find_card(model, options.card_dirs) or Card(model, CardSource("hub", model))
    entries = entries_of(card, list_cache(options.cache_dir))
    files = sum(entry.size_bytes for entry in entries if entry.kind is CacheKind.FILES)
    exports = [entry for entry in entries if entry.kind is CacheKind.EXPORT]
    if files:
        says = f"{card.name}: {files / MB:,.0f} MB fetched"
        says += f", exported in {', '.join(sorted({e.detail for e in exports}))}" * bool(exports)
        yield Check("model files", Health.OK, says)
    elif options.is_offline:
        advice = (
            f"run `nestvec model pull {model}` where there is a network and bring the cache folder"
        )
        says = f"{card.name} is not in {options.cache_dir}, and offline is set"
        yield Check("model files", Health.FAILED, says, advice)
    else:
        yield Check("model files", Health.OK, f"{card.name} is fetched at the first start")
    parameters = int(card.facts.get("parameters", 0))
    largest = max((entry.size_bytes for entry in exports), default=0)
    weights = largest or files or parameters * BYTES_PER_PARAMETER
    if weights:
        yield _memory(weights, available_bytes)


def _memory(weights_bytes: int, available_bytes: int | None) -> Check:
    """Compare what a model takes with what is free."""
    available = free_memory_bytes() if available_bytes is None else available_bytes
    needed = int(weights_bytes * OPENING_FACTOR) + SERVER_BYTES
    says = f"about {needed / MB:,.0f} MB to open the model, {available / MB:,.0f} MB free"
    if needed > available:
        advice = "take a smaller model, or --precision int8; a machine that swaps is of no use"
        return Check("memory", Health.WARNING, says, advice)
    return Check("memory", Health.OK, says)


def free_memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return how much memory a process may still take: what the machine has free, or less in a container."""
    free = usable_memory_bytes() - resident_bytes()
    try:
        lines = meminfo.read_text().splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        return min(free, int(available.split()[1]) * 1024)
    except (OSError, StopIteration, ValueError):
        return free


def check_network(
    *, is_offline: bool, environment: Mapping[str, str], connect: Connect | None = None
) -> Check:
    """Check whether the Hub, or its mirror, can be reached; with a proxy that is only told.

    Args:
        is_offline: Whether the network must not be used.
        environment: Variables of the process.
        connect: Opens a connection to a host and a port, and closes it; may raise OSError.
    """
    if is_offline:
        return Check("network", Health.OK, "not used: offline is set")
    variables = {name.upper(): value for name, value in environment.items() if value}
    proxies = [name for name in PROXIES if name in variables]
    if "HTTPS_PROXY" in proxies or "ALL_PROXY" in proxies:
        return Check("network", Health.OK, f"by a proxy ({', '.join(proxies)}), which is not tried")
    from huggingface_hub.constants import ENDPOINT

    url = urlsplit(variables.get(HUB_VARIABLE, ENDPOINT))
    host, port = url.hostname or "", url.port or (80 if url.scheme == "http" else 443)
    try:
        (connect or _connect)(host, port)
    except OSError as error:
        advice = (
            f"only models of the Hub need it; {HUB_VARIABLE} names a mirror, HTTPS_PROXY a proxy; without one, bring a "
            "cache folder and set offline"
        )
        says = f"{host} cannot be reached ({error.strerror or error})"
        return Check("network", Health.WARNING, says, advice)
    return Check("network", Health.OK, f"{host} can be reached")


def _connect(host: str, port: int) -> None:
    socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()


def check_extras(
    requirements: Sequence[str] | None = None,
    find: Callable[[str], str | None] = installed_version,
) -> Check:
    """Tell which optional features are installed, and how to add the others.

    Args:
        requirements: The package's requirements as its metadata has them; None reads them.
        find: Gives a package's version; None where it is not installed.
    """
    if requirements is None:
        try:
            requirements = requires("nestvec") or ()
        except PackageNotFoundError:
            requirements = ()
    packages: dict[str, list[str]] = {}
    for requirement in requirements:
        if match := EXTRA.match(requirement):
            packages.setdefault(match[2], []).append(match[1])
    there = [extra for extra, names in packages.items() if all(map(find, names))]
    absent = [extra for extra in packages if extra not in there]
    says = f"{', '.join(there) or 'none'} installed" + (
        f"; not: {', '.join(absent)}" if absent else ""
    )
    return Check(
        "extras",
        Health.OK,
        says,
        "; ".join(f"{extra}: {how_to_install(extra)}" for extra in absent),
    )
