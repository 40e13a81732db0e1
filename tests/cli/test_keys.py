"""`nestvec keys`: keys are made, listed, rotated and revoked; a key itself is on stdout and nowhere else."""

import re
import subprocess
import threading
import time
from pathlib import Path

import click
import pytest
from nestvec.cli.doctor import _keys
from nestvec.cli.keys import command as keys_command
from nestvec.cli.serve import command as serve_command
from nestvec.config.loading import check_to_serve, load_settings
from nestvec.errors import ConfigError
from nestvec.keys.key_usage import KeyUsage
from nestvec.keys.keyring import Keyring
from nestvec.keys.records import KeyFile, KeyLimits, edit_key_file
from nestvec.keys.usage_database import DATABASE_NAME, usage_engine
from nestvec.keys.usage_table import UsageTable

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
    table = UsageTable(usage_engine(tmp_path / DATABASE_NAME))
    table.make()
    table.add([KeyUsage(grant.key_id, time.strftime("%Y-%m", time.gmtime()), 3, 70)])
    table.close()
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


def test_a_server_that_has_had_keys_does_not_start_without_them(tmp_path: Path) -> None:
    """`serve` refuses to start where the file is gone, damaged, or named and absent, and says how to go on."""
    keys_command.main(["add", "alice", "--data-dir", str(tmp_path)], standalone_mode=False)

    def serve(*flags: str) -> str:
        open_to_all = ("--host", "0.0.0.0", "--allow-unauthenticated")  # noqa: S104 - it does not start
        with pytest.raises(ConfigError) as caught:
            serve_command.main(
                ["--data-dir", str(tmp_path), *open_to_all, *flags], standalone_mode=False
            )
        return caught.value.message

    path = tmp_path / "keys.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    assert "it is damaged" in serve()
    path.unlink()
    assert str(tmp_path / "keys-required") in serve()
    assert "nestvec keys add" in serve("--keys-file", str(tmp_path / "unmounted" / "keys.json"))
    assert "keys-required" in run(tmp_path, "list").stderr


def test_a_forgotten_variable_does_not_open_a_server_that_others_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that had keys by its settings, and is reachable, does not start when they are missing; others do."""

    def check(host: str, keys: str = "") -> None:
        monkeypatch.setenv("NESTVEC_API_KEYS", keys)
        flags = {"data_dir": str(tmp_path), "host": host, "allow_unauthenticated": True}
        check_to_serve(load_settings(flags))

    wide = "0.0.0.0"  # noqa: S104 - not bound
    check("127.0.0.1", "one")
    check(wide)  # keys on the loopback address, as in somebody's trials, bind nobody
    check(wide, "one")
    with pytest.raises(ConfigError, match="has had keys and now has none") as caught:
        check(wide)
    assert str(tmp_path / "api-keys-required") in caught.value.message
    check("127.0.0.1")
    check(wide, "another")
    keys_command.main(["add", "alice", "--data-dir", str(tmp_path)], standalone_mode=False)
    check(wide)  # its file asks for keys


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"{}", "version"), (None, "does not exist"), (b"[", "damaged")],
)
def test_the_doctor_looks_at_keys_and_usage(
    tmp_path: Path, content: bytes | None, expected: str
) -> None:
    """The doctor says that keys are good, or why they cannot be read, and that usage is damaged."""
    keys_command.main(["add", "alice", "--data-dir", str(tmp_path)], standalone_mode=False)
    path = tmp_path / "keys.json"

    def examine() -> dict[str, tuple[str, str]]:
        settings = load_settings({"data_dir": str(tmp_path), "cache_dir": str(tmp_path)})
        return {check.name: (check.health, check.says) for check in _keys(settings)}

    assert examine() == {"keys": ("ok", f"1 good in {path}")}
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    (tmp_path / "jobs.db").write_bytes(b"junk" * 500)
    found = examine()
    assert found["keys"][0] == found["usage"][0] == "failed"
    assert expected in found["keys"][1]
    assert "jobs.db" in found["usage"][1]


def test_names_that_would_not_be_read_are_refused(tmp_path: Path) -> None:
    """A name with control characters is refused before it makes the file one that lets nobody in."""
    for name in ("a\nb", "\x1b[31m", "x" * 201):
        with pytest.raises(click.UsageError, match="printable"):
            keys_command.main(["add", name, "--data-dir", str(tmp_path)], standalone_mode=False)
    assert not (tmp_path / "keys.json").exists()
