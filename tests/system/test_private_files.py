"""Private files and folders: made so, tightened, never loosened; secrets that several processes share."""

import os
import stat
import threading
from pathlib import Path

import pytest
from nestvec.jobs.folder_lock import lock_folder
from nestvec.keys.records import KeyFile, KeyLimits, edit_key_file
from nestvec.system.private_files import kept_secret, make_private_folder, open_private, tighten


def mode(path: Path) -> int:
    """Return the permissions of a file or folder."""
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_is_private(tmp_path: Path) -> None:
    """New data folders, locks and key files are their owner's only, whatever the umask."""
    umask = os.umask(0)
    try:
        lock_folder(tmp_path / "data").close()
        with edit_key_file(tmp_path / "keys" / "keys.json") as file:
            file.add("someone", KeyLimits())
    finally:
        os.umask(umask)
    assert (mode(tmp_path / "data"), mode(tmp_path / "data" / "lock")) == (0o700, 0o600)
    assert mode(tmp_path / "keys") == 0o700
    assert {mode(path) for path in (tmp_path / "keys").iterdir()} == {0o600}
    assert KeyFile.read(tmp_path / "keys" / "keys.json").records


@pytest.mark.parametrize(("before", "after"), [(0o755, 0o700), (0o777, 0o700), (0o500, 0o500)])
def test_what_exists_is_tightened_and_never_loosened(
    tmp_path: Path, before: int, after: int
) -> None:
    """Rights of others are taken away from what earlier versions made; the owner's stay as they are."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "lock").touch()
    folder.chmod(0o755)
    (folder / "lock").chmod(0o644)
    lock_folder(folder).close()
    assert (mode(folder), mode(folder / "lock")) == (0o700, 0o600)
    folder.chmod(before)
    tighten(folder)
    assert mode(folder) == after
    folder.chmod(0o700)
    tighten(tmp_path / "absent")


def test_files_are_appended_to(tmp_path: Path) -> None:
    """Opening a private file keeps what it holds."""
    for _ in range(2):
        with open_private(tmp_path / "file") as file:
            file.write(b"x")
    assert (tmp_path / "file").read_bytes() == b"xx"


def test_a_secret_is_kept_and_shared(tmp_path: Path) -> None:
    """Whoever asks gets the same secret, at once or later; a damaged one is replaced."""
    secrets: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: secrets.append(kept_secret([tmp_path / "data"], "s", 32)))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(secrets)) == 1
    assert len(secrets[0]) == 32
    path = tmp_path / "data" / "s"
    assert (mode(path), [file.name for file in path.parent.iterdir()]) == (0o600, ["s"])
    assert kept_secret([tmp_path / "data"], "s", 32) == secrets[0]
    path.write_bytes(b"short")
    replaced = kept_secret([tmp_path / "data"], "s", 32)
    assert replaced not in (b"short", secrets[0])
    assert kept_secret([tmp_path / "data"], "s", 32) == replaced


def test_a_secret_without_a_place(tmp_path: Path) -> None:
    """A folder that cannot be made is passed over; where none can, the secret is kept nowhere."""
    blocked = tmp_path / "file" / "folder"
    (tmp_path / "file").touch()
    first = kept_secret([blocked, tmp_path / "runtime"], "s", 32)
    assert kept_secret([blocked, tmp_path / "runtime"], "s", 32) == first
    assert kept_secret([blocked], "s", 32) != kept_secret([blocked], "s", 32)
    make_private_folder(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o700
