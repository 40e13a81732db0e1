"""What docker/check runs: the stack of docker-compose.yml under names of its own, and containers beside it."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engine import CommandError, Engine
from probes import TEXT, wait_ready, wait_until
from report import Report

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final = f"nestvec-check-{os.getpid()}"
# Names of its own, for an engine may have others' images of the usual ones.
TAG: Final = "localhost/nestvec-check:cpu"
GPU_TAG: Final = "localhost/nestvec-check:gpu"
BAKED_TAG: Final = "localhost/nestvec-check:baked"
USER: Final = 10001
# As OpenShift runs containers: some user without an entry in /etc/passwd, in group 0.
ARBITRARY_USER: Final = "123456:0"


@dataclass
class Check:
    """What all parts of the check share.

    Attributes:
        engine: Runs the containers.
        folder: Everything that is written.
        report: What was seen.
        variables: What docker-compose.yml takes from the environment.
        reference: The vector of a bare server.
        is_gpu_skipped: Whether the image for GPUs is not built even where there is room for it.
    """

    engine: Engine
    folder: Path
    report: Report
    variables: dict[str, str] = field(default_factory=dict)
    reference: list[float] = field(default_factory=list)
    is_gpu_skipped: bool = False

    @property
    def context(self) -> Path:
        """The files of the checkout that git knows, so that neither a `.env` nor a cache has a say."""
        return self.folder / "context"

    @property
    def url(self) -> str:
        """The server of Compose, by the host's port."""
        return f"http://127.0.0.1:{self.variables['NESTVEC_PORT']}"

    @property
    def server(self) -> str:
        """The container of the server of Compose."""
        return self.engine.container_of(PROJECT, "nestvec-cpu")

    def compose(self, *arguments: str, **variables: str) -> str:
        """Run docker-compose on the context."""
        return self.engine.compose(self.context, {**self.variables, **variables}, *arguments)

    def up(self, **variables: str) -> float:
        """Start the stack of the profile cpu; returns the seconds until it was ready."""
        began = time.monotonic()
        self.compose("--profile", "cpu", "up", "-d", "--no-build", **variables)
        wait_ready(self.url)
        return time.monotonic() - began

    def in_container(self, container: str, code: str) -> str:
        """Run Python in a container."""
        return self.engine("exec", container, "python", "-c", code).strip()


def health_of(check: Check, container: str) -> bool:
    """Whether a container's own health check says that it is well."""
    if not check.engine.is_podman:  # the daemon runs it by itself
        state = check.engine.inspect(container)["State"]
        return bool(state["Health"]["Status"] == "healthy")
    try:
        check.engine("healthcheck", "run", container)
    except CommandError:
        return False
    return True


EMBED_INSIDE: Final = (
    "import json, urllib.request as u\n"
    f"r = u.Request('http://127.0.0.1:8080/v1/embeddings', json.dumps({{'input': {TEXT!r}}}).encode(), "
    "{'content-type': 'application/json'})\n"
    "print(json.dumps(json.load(u.urlopen(r, timeout=60))['data'][0]['embedding']))"
)
# As docker-compose.yml has it.
CONFINED: Final = (
    *("--read-only", "--tmpfs", "/tmp:size=256m", "--cap-drop", "all"),
    *("--security-opt", "no-new-privileges", "--env", "NESTVEC_ALLOW_UNAUTHENTICATED=true"),
)


def check_ready_alone(check: Check, promise: str, *arguments: str) -> None:
    """A container of the image, started by hand, becomes ready and answers."""
    with check.engine.running(f"{PROJECT}-alone", *CONFINED, *arguments) as name:
        try:
            seconds = wait_until(lambda: health_of(check, name), 120, "ready")
        except TimeoutError:
            raise CommandError(check.engine("logs", name)[-1000:]) from None
        vector = json.loads(check.in_container(name, EMBED_INSIDE))
        check.report.note(promise, f"ready after {seconds:.1f} s, {len(vector)} dimensions")
