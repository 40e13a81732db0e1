"""`nestvec keys`: keys are made, listed, rotated and revoked; a key itself is on stdout and nowhere else."""

import re
import subprocess
import threading
from pathlib import Path

import pytest
from nestvec.keys.keyring import Keyring
from nestvec.keys.records import KeyFile, KeyLimits, edit_key_file
from nestvec.keys.usage import UsageCounter

from tests.support.server import command, environment

pytestmark = pytest.mark.process


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command over a data folder."""
    return subprocess.run(
        command("keys", *arguments, "--data-dir", str(folder)),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_life_of_a_key(tmp_path: Path) -> None:
    """A key is added, used, listed, rotated and revoked; wrong uses of the command end with status 2."""
    added = run(tmp_path, "add", "alice", "--requests-per-s", "2", "--model", "a", "--bulk-only")
    key = added.stdout.strip()
    assert added.returncode == 0
    assert "asks every caller" in added.stderr
    assert key not in added.stderr
    keyring = Keyring(path=tmp_path / "keys.json")
    grant = keyring.authenticate(key)
    assert grant.limits == KeyLimits(("a",), 2.0, is_bulk_only=True)
    usage = UsageCounter(tmp_path / "usage.db")
    usage.add(grant.key_id, requests=3, tokens=70)
    usage.flush()
    listed = run(tmp_path, "list").stdout
    assert grant.key_id in listed
    assert "models=a, 2 requests/s, bulk only" in listed
    assert listed.splitlines()[1].split()[-2:] == ["3", "70"]
    operator = run(tmp_path, "add", "olga", "--admin").stdout.strip()
    assert Keyring(path=tmp_path / "keys.json").authenticate(operator).is_admin
    assert not grant.is_admin
    listed = run(tmp_path, "list").stdout
    assert re.search(r"olga +good +admin ", listed)
    run(tmp_path, "revoke", "olga")
    new = run(tmp_path, "rotate", "alice", "--overlap-h", "0").stdout.strip()
    assert new.split("_")[1] == grant.key_id
    revoked = run(tmp_path, "revoke", grant.key_id)
    assert "no key is good now" in revoked.stderr
    assert "revoked" in run(tmp_path, "list").stdout
    for wrong in (("revoke", "bob"), ("rotate", "alice"), ("add", "x", "--requests-per-s", "0")):
        done = run(tmp_path, *wrong)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_nothing_is_lost_where_two_add_at_once(tmp_path: Path) -> None:
    """Whoever changes the file waits for the other."""

    def add() -> None:
        for number in range(20):
            with edit_key_file(tmp_path / "keys.json") as file:
                file.add(str(number), KeyLimits())

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(KeyFile.read(tmp_path / "keys.json").records) == 80
