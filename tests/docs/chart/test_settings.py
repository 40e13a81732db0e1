"""Variables of manifests are settings, with values that servers take; a server runs as they say."""

import time
from pathlib import Path
from typing import Final

import httpx
import pytest
from nestvec.api.dialects import open_inference
from nestvec.api.routes import operations
from nestvec.config.loading import load_settings
from nestvec.config.settings import PREFIX, Settings
from nestvec.keys.records import KeyLimits, edit_key_file

from tests.docs.chart.manifests import env_of, of_kind, pods
from tests.support.server import running_server
from tests.support.services import free_port

# What Secrets hold, by the variable that is taken from them.
SECRETS: Final = {
    "NESTVEC_DATABASE_URL": "postgresql+psycopg://nestvec:secret@db/nestvec",
    "NESTVEC_RATES_URL": "redis://redis:6379/0",
}


def test_every_variable_is_a_setting_with_a_value_that_it_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The settings of each set load, and no variable of ours is anything else."""
    (tmp_path / "api-keys").write_text("a-key\n")
    with edit_key_file(tmp_path / "keys.json") as keys:
        keys.add("search", KeyLimits())
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name, container, _ in pods():
        with monkeypatch.context() as patch:
            variables = [entry for entry in container["env"] if entry["name"].startswith(PREFIX)]
            assert len({entry["name"] for entry in variables}) == len(variables), name
            for entry in variables:
                assert entry["name"] in known, name
                value = entry.get("value") or SECRETS[entry["name"]]
                patch.setenv(entry["name"], value.replace("/etc/nestvec/keys", str(tmp_path)))
            settings = load_settings()
            assert not settings.is_loopback
            assert (settings.port, str(settings.cache_dir)) == (8080, "/models"), name


def test_probes_ask_paths_that_the_server_has() -> None:
    """Startup and readiness ask whether requests are served, liveness whether the process answers."""
    routes = {
        getattr(r, "path", "") for r in (*operations.router.routes, *open_inference.router.routes)
    }
    for name, container, _ in pods():
        paths = {
            probe: container[f"{probe}Probe"]["httpGet"]["path"]
            for probe in ("startup", "readiness", "liveness")
        }
        assert set(paths.values()) <= routes, name
        assert paths["startup"] == paths["readiness"], name
        assert paths["readiness"].endswith("/health/ready"), name
        assert paths["liveness"].endswith("/health/live"), name


@pytest.mark.process
def test_a_server_runs_as_the_manifests_say(
    tiny_folder: Path, tiny_cache: Path, tmp_path: Path
) -> None:
    """It answers where probes ask, shows metrics on the operators' port alone, and sees a Secret that changes."""
    (deployment,) = of_kind("single", "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    settings = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in env_of(container).items()
        if name.startswith(PREFIX)
    }
    secret = tmp_path / "keys"
    first = put_secret(secret, "first")
    settings |= {
        "host": "127.0.0.1",
        "port": "0",
        "operations_port": str(free_port()),
        "model": str(tiny_folder),
        "cache_dir": str(tiny_cache),
        "data_dir": str(tmp_path / "data"),
        "keys_file": str(secret / Path(settings["keys_file"]).name),
        "drain_grace_s": "0",
        "offline": "true",
    }
    with running_server(tmp_path, **settings) as server, httpx.Client(timeout=60) as client:

        def status(key: str) -> int:
            headers, body = {"authorization": f"Bearer {key}"}, {"input": "hi"}
            answer = client.post(f"{server.url}/v1/embeddings", json=body, headers=headers)
            return answer.status_code

        for probe in ("startup", "readiness", "liveness"):
            path = container[f"{probe}Probe"]["httpGet"]["path"]
            assert client.get(server.url + path).is_success, probe
        assert client.get(f"{server.url}/metrics").status_code == httpx.codes.NOT_FOUND
        operators = f"http://127.0.0.1:{settings['operations_port']}/metrics"
        assert "nestvec_queue_seconds{" in client.get(operators).text
        assert (status(first), status("another")) == (httpx.codes.OK, httpx.codes.UNAUTHORIZED)
        second = put_secret(secret, "second")
        deadline = time.monotonic() + 60
        while status(second) != httpx.codes.OK and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (status(second), status(first)) == (httpx.codes.OK, httpx.codes.UNAUTHORIZED)
        assert server.terminate() == 0, server.logs()


def put_secret(folder: Path, version: str) -> str:
    """Give a Secret's volume a version with one key, as a kubelet does: new files, then one link is turned.

    Returns:
        The key.
    """
    (folder / f"..{version}").mkdir(parents=True)
    with edit_key_file(folder / f"..{version}/keys.json") as keys:
        _, key = keys.add("search", KeyLimits())
    (folder / "..new").symlink_to(f"..{version}")
    (folder / "..new").rename(folder / "..data")
    if not (folder / "keys.json").is_symlink():
        (folder / "keys.json").symlink_to("..data/keys.json")
    return key
