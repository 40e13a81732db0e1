"""`nestvec keys`: made, listed, rotated, revoked; the key itself is on stdout and nowhere else."""

import subprocess
import threading
from pathlib import Path

import pytest
from nestvec.keys.keyring import Keyring
from nestvec.keys.records import KeyFile, KeyLimits, edited
from nestvec.keys.usage import Usage

from tests.support.server import command, environment

pytestmark = pytest.mark.process


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command over a folder."""
    return subprocess.run(
        command("keys", *arguments, "--data-dir", str(folder)),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_life_of_a_key(tmp_path: Path) -> None:
    """From the first to the last word."""
    made = run(tmp_path, "add", "alice", "--requests-per-s", "2", "--model", "a", "--bulk-only")
    key = made.stdout.strip()
    assert made.returncode == 0
    assert "asks every caller" in made.stderr
    assert key not in made.stderr
    ring = Keyring(path=tmp_path / "keys.json")
    found = ring.enter(key)
    assert found.limits == KeyLimits(("a",), 2.0, is_bulk_only=True)
    usage = Usage(tmp_path / "usage.db")
    usage.add(found.key_id, requests=3, tokens=70)
    usage.flush()
    listed = run(tmp_path, "list").stdout
    assert found.key_id in listed
    assert "models=a, 2 requests/s, bulk only" in listed
    assert listed.splitlines()[1].split()[-2:] == ["3", "70"]
    new = run(tmp_path, "rotate", "alice", "--overlap-h", "0").stdout.strip()
    assert new.split("_")[1] == found.key_id
    revoked = run(tmp_path, "revoke", found.key_id)
    assert "no key is good now" in revoked.stderr
    assert "revoked" in run(tmp_path, "list").stdout
    for wrong in (("revoke", "bob"), ("rotate", "alice"), ("add", "x", "--requests-per-s", "0")):
        done = run(tmp_path, *wrong)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_nothing_is_lost_where_two_add_at_once(tmp_path: Path) -> None:
    """One waits for the other."""

    def add() -> None:
        for number in range(20):
            with edited(tmp_path / "keys.json") as file:
                file.add(str(number), KeyLimits())

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(KeyFile.read(tmp_path / "keys.json").records) == 80
