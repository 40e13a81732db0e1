"""A container engine for docker/check: podman with a store, networks and a socket of its own, or Docker."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

CALL_TIMEOUT_S: Final = 180
BUILD_TIMEOUT_S: Final = 1500
SOCKET_TIMEOUT_S: Final = 20

STORAGE_CONF: Final = """\
[storage]
driver = "overlay"
graphroot = "{folder}/store"
runroot = "{folder}/run"
"""
# runc, as crun refuses hosts with hybrid control groups; limits that a container in a container may set; and names of
# images as they stand, without a registry before them.
CONTAINERS_CONF: Final = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{folder}/tmp"
compat_api_enforce_docker_hub = false
[engine.runtimes]
runc = ["/usr/sbin/runc", "/usr/bin/runc"]
"""


class CommandError(Exception):
    """A command ended with another status than 0."""


def call(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    timeout_s: float = CALL_TIMEOUT_S,
    cwd: Path | None = None,
) -> str:
    """Run a command and return what it printed, errors included.

    Raises:
        CommandError: It failed; the message has the end of what it printed.
    """
    done = subprocess.run(
        [str(part) for part in command],
        env=None if env is None else dict(env),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        shown = " ".join(str(part) for part in command)[:200]
        raise CommandError(f"{shown}: status {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout


class Engine:
    """Runs containers by podman or Docker.

    Args:
        name: "podman" or "docker".
        folder: Where podman's store, networks and socket are; nothing of it remains.
        compose: The program; by default docker-compose, or where there is none Docker's own.
    """

    def __init__(self, name: str, folder: Path, compose: str = "") -> None:
        self.name, self._folder = name, folder
        self._service: subprocess.Popen[bytes] | None = None
        # Without what somebody has set for a server of their own.
        self.env = {name: v for name, v in os.environ.items() if not name.startswith("NESTVEC_")}
        if self.is_podman:
            for file, text in (
                ("storage.conf", STORAGE_CONF),
                ("containers.conf", CONTAINERS_CONF),
                ("registries.conf", "unqualified-search-registries = []\n"),
            ):
                (folder / file).write_text(text.format(folder=folder))
            self.env |= {
                "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
                "CONTAINERS_CONF": str(folder / "containers.conf"),
                "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
                "DOCKER_HOST": f"unix://{folder}/podman.sock",
                "TMPDIR": str(folder),  # else builds use /var/tmp
            }
        found = compose or shutil.which("docker-compose")
        self._compose = [found] if found else ["docker", "compose"]

    @property
    def is_podman(self) -> bool:
        """Whether this is podman."""
        return self.name == "podman"

    def start(self) -> None:
        """Start what docker-compose talks to; Docker's runs already."""
        if not self.is_podman:
            return
        socket = self._folder / "podman.sock"
        command = ["podman", "system", "service", "--time", "0", f"unix://{socket}"]
        log = (self._folder / "service.log").open("wb")
        self._service = subprocess.Popen(
            command, env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + SOCKET_TIMEOUT_S
        while not socket.exists():
            if time.monotonic() > deadline or self._service.poll() is not None:
                raise CommandError((self._folder / "service.log").read_text()[-2000:])
            time.sleep(0.1)

    def close(self, *tags: str) -> None:
        """Remove images, of podman's own store everything, and stop the service.

        Args:
            tags: The images to remove where the store is not our own.
        """
        if not self.is_podman:
            for tag in tags:
                with contextlib.suppress(CommandError, subprocess.TimeoutExpired):
                    self("rmi", "--force", tag)
            return
        for arguments in (
            ("rm", "--all", "--force", "--time", "2"),
            ("network", "prune", "--force"),
            ("volume", "prune", "--force"),
            ("rmi", "--all", "--force"),
        ):
            with contextlib.suppress(CommandError, subprocess.TimeoutExpired):
                self(*arguments)
        if self._service is not None:
            self._service.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._service.wait(10)
            self._service.kill()
            self._service = None
        # The store is a mount of its own, and a build that was interrupted leaves others in it.
        lines = Path("/proc/self/mounts").read_text().splitlines()
        mounts = [line.split()[1] for line in lines]
        for mount in reversed([path for path in mounts if path.startswith(f"{self._folder}/")]):
            with contextlib.suppress(CommandError):
                call("umount", mount)

    def __call__(self, *arguments: str | Path, timeout_s: float = CALL_TIMEOUT_S) -> str:
        """Run a command of the engine, and return what it printed."""
        return call(self.name, *arguments, env=self.env, timeout_s=timeout_s)

    def build(self, context: Path, tag: str, *arguments: str) -> float:
        """Build an image; returns the seconds that it took."""
        # Without its own format podman drops HEALTHCHECK.
        form = ["--format", "docker"] if self.is_podman else []
        began = time.monotonic()
        options = ["--network", "host", *form, *arguments, "-t", tag]
        self("build", *options, context, timeout_s=BUILD_TIMEOUT_S)
        return time.monotonic() - began

    def load_root(self, archive: Path, tag: str, *changes: str) -> None:
        """Make an image of a root file system."""
        options = [part for change in changes for part in ("--change", change)]
        self("import", *options, archive, tag, timeout_s=600)

    def inspect(self, name: str, *, kind: str = "container") -> Any:  # noqa: ANN401 - the engine's JSON
        """Return what the engine says of a container, an image or a volume."""
        return json.loads(self(kind, "inspect", name))[0]

    def layers(self, tag: str) -> dict[str, int]:
        """Return the bytes of each layer of an image by its digest, uncompressed."""
        digests = self.inspect(tag, kind="image")["RootFS"]["Layers"]
        archive = self._folder / "image.tar"
        self("save", "-o", archive, tag, timeout_s=600)
        with tarfile.open(archive) as file:
            members = {member.name: member for member in file}
            manifest = file.extractfile(members["manifest.json"])
            names = (
                json.load(manifest)[0]["Layers"] if manifest else []
            )  # in the order of the digests
            # Docker 20.10 saves a layer that occurs twice as a link to the first.
            layers = [file.extractfile(members[name]) for name in names]
            sizes = [layer.seek(0, os.SEEK_END) if layer else 0 for layer in layers]
        archive.unlink()
        return dict(zip(digests, sizes, strict=True))

    @property
    def version(self) -> str:
        """What the engine and Compose say of themselves."""
        server = "{{.Server.Version}}"
        engine = self("--version") if self.is_podman else f"Docker {self('version', '-f', server)}"
        compose = call(*self._compose, "version", env=self.env).splitlines()[0]
        return f"{engine.strip()}, {compose}"

    def compose(
        self, folder: Path, variables: Mapping[str, str], *arguments: str, timeout_s: float = 600
    ) -> str:
        """Run docker-compose on a folder's docker-compose.yml."""
        command = [*self._compose, *arguments]
        return call(*command, env={**self.env, **variables}, cwd=folder, timeout_s=timeout_s)

    def container_of(self, project: str, service: str) -> str:
        """Return the id of the container of a service of Compose's."""
        label = "label=com.docker.compose"
        filters = [
            "--filter",
            f"{label}.project={project}",
            "--filter",
            f"{label}.service={service}",
        ]
        return self("ps", "--all", "--quiet", "--no-trunc", *filters).split()[0]

    @contextlib.contextmanager
    def running(self, name: str, *arguments: str) -> Iterator[str]:
        """Run a container of the given name within a block, and remove it with its own volumes."""
        self("run", "--detach", "--name", name, *arguments)
        try:
            yield name
        finally:
            self("rm", "--force", "--volumes", name)
