"""What the Dockerfile, the compose file and the health check promise as files; docker/check runs them."""

import http.server
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from nestvec.config.settings import PREFIX, Settings
from typing_extensions import override

ROOT: Final = Path(__file__).parents[2]
SERVERS: Final = {"nestvec-cpu": "model-cpu", "nestvec-gpu": "model-gpu"}
# What engines of 2022 know (Docker 20.10, Buildah 1.28).
HEALTH_FLAGS: Final = {"interval", "timeout", "start-period", "retries"}


def text(name: str) -> str:
    """Return a file of the repository."""
    return (ROOT / name).read_text("utf-8")


def services() -> dict[str, dict[str, Any]]:
    """Return the services of the compose file."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(text("docker-compose.yml"))["services"]
    return found


def stages() -> dict[str, list[str]]:
    """Return the instructions of each stage of the Dockerfile, continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", text("Dockerfile"), flags=re.MULTILINE))
    found: dict[str, list[str]] = {}
    for line in filter(None, joined.splitlines()):
        if line.startswith("FROM"):
            found[line.split()[-1]] = []
        elif found:
            found[list(found)[-1]].append(line)
    return found


def test_compose_has_server_and_prometheus_for_both_profiles() -> None:
    """Both profiles are read-only, without capabilities and on loopback, and set settings that exist."""
    profiles = {name: service["profiles"] for name, service in services().items()}
    assert profiles == {
        **{name: [name.split("-")[1]] for pair in SERVERS.items() for name in pair},
        "prometheus": ["cpu", "gpu"],
        "grafana": ["grafana"],
    }
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for service in services().values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        own = {name for name in service.get("environment", ()) if not name.startswith("GF_")}
        assert own <= known
    scrape = yaml.safe_load(text("deploy/prometheus/prometheus.yml"))["scrape_configs"][0]
    assert scrape["static_configs"][0]["targets"] == ["nestvec:8080"]


def test_every_container_is_bounded() -> None:
    """Logs rotate, memory and processes have a limit that a variable sets, and /tmp has a size."""
    for name, service in services().items():
        assert service["logging"]["driver"] == "json-file", name  # which podman knows too
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name
        assert re.fullmatch(r"\$\{\w+:-\d+g\}", service["mem_limit"]), name
        # docker-compose 1.29 takes a variable's value for text here, and crashes.
        assert isinstance(service["pids_limit"], int), name
        assert all(":size=" in mount for mount in service.get("tmpfs", ())), name


def test_the_gpu_is_asked_for_as_every_compose_takes_it() -> None:
    """No number comes from a variable, which docker-compose 1.29 takes for text; no capability leaves libcuda out."""
    for name in ("nestvec-gpu", "model-gpu"):
        (device,) = services()[name]["deploy"]["resources"]["reservations"]["devices"]
        capabilities = device["capabilities"]
        assert "gpu" in capabilities
        assert "utility" not in capabilities or "compute" in capabilities
        if "device_ids" in device:
            assert all(isinstance(number, str) for number in device["device_ids"])
        else:
            assert device["count"] == "all" or isinstance(device["count"], int)


def test_what_downloads_is_not_restarted() -> None:
    """A model is fetched by a container that ends, without another try; the server starts after it and always again."""
    for server, model in SERVERS.items():
        assert services()[server]["restart"] == "unless-stopped"
        condition = {model: {"condition": "service_completed_successfully"}}
        assert services()[server]["depends_on"] == condition
        assert services()[model]["restart"] == "no"
        assert services()[model]["command"] == ["model", "pull", "--if-missing"]
        of_model = services()[model]
        assert of_model["environment"].items() <= services()[server]["environment"].items()
        assert of_model["volumes"] == services()[server]["volumes"]


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_docker_compose_accepts_the_file(profile: str) -> None:
    """docker-compose accepts the file."""
    tool = shutil.which("docker-compose")
    if tool is None:
        pytest.skip("docker-compose absent")
    line = [tool, "--profile", profile, "config", "--quiet"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_hadolint_accepts_the_dockerfile() -> None:
    """Hadolint accepts the Dockerfile without a remark."""
    tool = Path(sys.executable).parent / "hadolint"
    if not tool.is_file():
        pytest.skip("hadolint absent: its wheel is for Linux on x86-64")
    done = subprocess.run(
        [tool, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_dockerfile_is_plain() -> None:
    """It needs no frontend from a registry, and no flag that engines of 2022 do not know."""
    assert "# syntax" not in text("Dockerfile")
    assert "--mount" not in text("Dockerfile")
    (health,) = [line for line in stages()["runtime"] if line.startswith("HEALTHCHECK")]
    assert set(re.findall(r"--([\w-]+)=", health)) <= HEALTH_FLAGS


def test_the_dockerfile_sets_settings_that_exist() -> None:
    """The Dockerfile sets settings that exist, and runs as an unprivileged user."""
    known = {name.upper() for name in Settings.model_fields}
    assert set(re.findall(r"NESTVEC_(\w+)=", text("Dockerfile"))) <= known
    assert re.findall(r"^USER (.*)$", text("Dockerfile"), re.MULTILINE) == ["10001"]


def test_the_image_for_cpus_needs_no_stage_of_the_other() -> None:
    """Builders of before BuildKit make all stages that stand before their target: gigabytes for GPUs stand behind."""
    names = list(stages())
    assert not [name for name in names[: names.index("cpu")] if "gpu" in name]
    assert text("Dockerfile").splitlines()[-1] == "FROM cpu AS default"


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_change_of_code_leaves_the_packages_layers(target: str) -> None:
    """Locked packages are installed before our code is copied, and are a layer of their own in the image."""
    packages, project = stages()[f"packages-{target}"], stages()[f"project-{target}"]
    assert not [line for line in packages if re.match(r"COPY .*\b(app|models|pyproject)", line)]
    assert [
        line for line in packages if line.startswith(f"RUN sh docker/install_locked.sh {target}")
    ]
    assert project[-1].endswith("--prefix=/project .")
    copies = [line.split()[1] for line in stages()[target] if line.startswith("COPY")]
    assert copies == [f"--from=packages-{target}", f"--from=project-{target}"]
    # What is written to a volume after its line is lost: a model that is baked in among it.
    assert stages()[target][-1].startswith("VOLUME")
    assert "BAKED_MODEL" in stages()[target][-2]


def test_volumes_can_be_written_by_any_user_of_group_0() -> None:
    """The folders of the volumes belong to group 0, which may write."""
    (folders,) = [line for line in stages()["runtime"] if "install -d" in line]
    assert "install -d -o 10001 -g 0 -m 0775 /models /data" in folders
    assert "groupadd --gid 10001" in folders


def test_what_the_dockerfile_copies_is_let_through() -> None:
    """Every path that the Dockerfile copies exists and is in the build's context."""
    allowed = [line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")]
    paths = {
        path
        for lines in stages().values()
        for line in lines
        if line.startswith("COPY") and "--from" not in line
        for path in line.split()[1:-1]
    }
    assert len(paths) > 5
    for path in paths:
        assert (ROOT / path).exists(), path
        assert any(pattern.split("/")[0] == path.split("/")[0] for pattern in allowed), path


@pytest.mark.parametrize(
    ("extras", "installed"),
    [
        ([], []),
        (["parquet"], ["parquet"]),
        (["parquet,quality"], ["parquet", "quality"]),
        (["parquet", "quality"], ["parquet", "quality"]),
    ],
)
def test_locks_are_installed_and_trimmed(
    extras: list[str], installed: list[str], tmp_path: Path
) -> None:
    """The image's venv gets the server's lock and those of the extras, with hashes, without the packages' own tests."""
    pip, log = tmp_path / "bin/pip", tmp_path / "log"
    pip.parent.mkdir()
    pip.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    pip.chmod(0o755)
    kept = tmp_path / "lib/package/testing.py"
    dropped = [tmp_path / "lib/package/tests/inner/test_it.py", tmp_path / "lib/package/lib.a"]
    for path in (kept, *dropped):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    line = ["sh", str(ROOT / "docker/install_locked.sh"), "cpu", *extras]
    subprocess.run(line, check=True, env={**os.environ, "VENV": str(tmp_path)})
    locks = ["cpu", *(f"extras/{extra}" for extra in installed)]
    assert log.read_text().splitlines() == [
        f"install --require-hashes -r requirements/{lock}.txt" for lock in locks
    ]
    assert [path.exists() for path in (kept, *dropped)] == [True, False, False]


@contextmanager
def answering(status: int) -> Iterator[int]:
    """Run a server that answers every request with a status; yields its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/ready" else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        @override
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def health(port: int | str, **variables: str) -> int:
    """Run the health check as the image does; returns its exit status."""
    env = {**os.environ, "NESTVEC_PORT": str(port), **variables}
    command = [sys.executable, "-IS", str(ROOT / "docker/healthcheck.py")]
    return subprocess.run(command, env=env, capture_output=True, check=False).returncode


def test_the_health_check_tells_ready_from_not() -> None:
    """200 is healthy; 503 and no server are not. No proxy of the environment is asked."""
    with answering(200) as port:
        assert health(port) == 0
        assert health(port, http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9") == 0
    assert health(port) == 1
    with answering(503) as port:
        assert health(port) == 1


def test_the_health_check_survives_what_kubernetes_injects(monkeypatch: pytest.MonkeyPatch) -> None:
    """NESTVEC_PORT=tcp://… of a Service of our name means the default port, as it does to the server."""
    check = runpy.run_path(str(ROOT / "docker/healthcheck.py"))
    monkeypatch.setenv("NESTVEC_PORT", "tcp://10.0.0.1:80")
    with answering(200) as port:
        check["main"].__globals__["DEFAULT_PORT"] = str(port)
        assert check["main"]() == 0
