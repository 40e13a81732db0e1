"""What `nestvec doctor` says of a start's surroundings: port, data folder, model, memory, network, extras."""

import socket
from pathlib import Path

import pytest
from nestvec.jobs.folder_lock import lock_folder
from nestvec.model_store.sources.fetch import SourceOptions
from nestvec.tools.diagnostics.checks import Health
from nestvec.tools.diagnostics.surroundings import (
    check_container,
    check_data_lock,
    check_extras,
    check_model,
    check_network,
    check_port,
    free_memory_bytes,
)

from tests.support.tiny import write_tiny_bert

CARD = """
name = "big-one"
[source]
kind = "hub"
name = "org/big-one"
[facts]
parameters = 1000000000
"""


def test_a_port_in_use_is_found() -> None:
    """A port that somebody listens on is told with the way out; a free one is not."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        taken = check_port("127.0.0.1", port)
        assert (taken.health, str(port) in taken.says) == (Health.WARNING, True)
        assert "--port" in taken.advice
    assert check_port("127.0.0.1", 0).health is Health.OK


def test_another_server_on_the_data_folder_is_found(tmp_path: Path) -> None:
    """The lock of a server's data folder is looked at, and left as it is."""
    assert check_data_lock(tmp_path / "data").health is Health.OK
    assert not (tmp_path / "data").exists()
    lock = lock_folder(tmp_path / "data")
    assert check_data_lock(tmp_path / "data").health is Health.WARNING
    lock.close()
    assert check_data_lock(tmp_path / "data").health is Health.OK


def options(tmp_path: Path, *, is_offline: bool) -> SourceOptions:
    """Where the tests' models come from: one card, and an empty cache."""
    (tmp_path / "big-one.toml").write_text(CARD)
    return SourceOptions(tmp_path / "cache", (tmp_path,), is_offline=is_offline)


def test_a_model_that_is_not_here(tmp_path: Path) -> None:
    """It is fetched at the first start; where offline is set it never will be."""
    files, memory = check_model("big-one", options(tmp_path, is_offline=False))
    assert (files.health, "first start" in files.says) == (Health.OK, True)
    files, memory = check_model("big-one", options(tmp_path, is_offline=True))
    assert (files.health, "model pull big-one" in files.advice) == (Health.FAILED, True)
    assert memory.name == "memory"


def test_memory_is_held_against_the_model(tmp_path: Path) -> None:
    """What the card's parameters or the files take is compared with what is free."""
    known = options(tmp_path, is_offline=False)
    short = list(check_model("big-one", known, available_bytes=4 * 10**9))[1]
    assert (short.health, "8,300 MB" in short.says) == (Health.WARNING, True)
    enough = list(check_model("big-one", known, available_bytes=9 * 10**9))[1]
    assert enough.health is Health.OK
    folder = write_tiny_bert(tmp_path / "tiny")
    files, memory = check_model(str(folder), known)
    assert (files.health, memory.health) == (Health.OK, Health.OK)
    assert free_memory_bytes() > 10**8
    assert check_container().health is Health.OK


def test_the_network_is_tried_only_where_it_would_be_used() -> None:
    """Offline and proxies are told; a mirror is tried in the Hub's place."""
    tried: list[tuple[str, int]] = []

    def connect(host: str, port: int) -> None:
        tried.append((host, port))
        if port == 81:
            raise OSError(111, "Connection refused")

    def check(*, is_offline: bool = False, **environment: str) -> Health:
        found = check_network(is_offline=is_offline, environment=environment, connect=connect)
        return found.health

    assert check(is_offline=True) is Health.OK
    assert check(https_proxy="http://proxy:3128") is Health.OK
    assert tried == []
    assert check(HF_ENDPOINT="https://mirror.example.org") is Health.OK
    assert check(HF_ENDPOINT="http://mirror.example.org:81/hub") is Health.WARNING
    assert tried == [("mirror.example.org", 443), ("mirror.example.org", 81)]


def test_extras_are_told_from_the_package_s_own_metadata() -> None:
    """An extra is there when all of its packages are; the others come with the command that adds them."""
    requirements = [
        "click>=8.1",
        "pyarrow>=18; extra == 'parquet'",
        "onnxruntime-gpu[cuda]>=1.31; extra == 'gpu'",
        'nvidia-ml-py>=12; extra == "gpu"',
    ]
    installed = {"pyarrow": "18", "nvidia-ml-py": "12"}
    check = check_extras(requirements, installed.get)
    assert check.says == "parquet installed; not: gpu"
    assert check.advice.startswith("gpu: `make setup EXTRA=gpu`")
    assert "parquet" in check_extras().says


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7"])
def test_an_address_that_is_none_of_ours(host: str) -> None:
    """A name that cannot be looked up, or another machine's address, is told and raises nothing."""
    assert check_port(host, 8080).health is Health.WARNING
