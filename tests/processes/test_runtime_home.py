"""Where run-time files lie, and what becomes of those of a dead server."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from nestvec.errors import ConfigError
from nestvec.processes import runtime_home
from nestvec.processes.runtime_dir import RuntimeDir
from nestvec.processes.runtime_home import RuntimeHome, runtime_homes, sweep


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without the variables of systemd and of a session."""
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short name, whoever runs the test: the path of a socket has 107 characters at most."""
    with TemporaryDirectory(prefix="nv-") as name:
        yield Path(name)


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """The folder of a server whose supervisor was killed, and a process that it left behind, stopped."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as orphan:
        os.kill(orphan.pid, signal.SIGSTOP)
        home = RuntimeHome.make([tmp_path / "run"])
        home.note_processes([orphan.pid])
        os.close(home.descriptor)  # as the kernel does
        yield home.folder, orphan
        orphan.kill()


def test_a_unit_s_folder_is_better_than_a_session_s_and_that_than_the_data_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The folder for temporary files comes last."""
    session = tmp_path / "session"
    session.mkdir()
    temporary = runtime_homes(tmp_path)[-1]
    assert runtime_homes(tmp_path) == [tmp_path / "run", temporary]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path / 'unit'}:{tmp_path / 'other'}")
    assert runtime_homes(tmp_path) == [
        tmp_path / "unit",
        session / "nestvec",
        tmp_path / "run",
        temporary,
    ]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "absent"))
    assert session / "nestvec" not in runtime_homes(tmp_path)


def test_a_place_without_sockets_or_rights_is_passed_over(tmp_path: Path) -> None:
    """A path that is too long, a file, a link to elsewhere: the next place is taken; all is private."""
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    places = [tmp_path / ("long" * 30), tmp_path / "file", tmp_path / "link"]
    home = RuntimeHome.make([*places, tmp_path / "good"])
    assert home.folder.parent == tmp_path / "good"
    assert home.folder.stat().st_mode & 0o777 == 0o700
    assert home.folder.parent.stat().st_mode & 0o777 == 0o700
    assert not list((tmp_path / ("long" * 30)).iterdir())
    home.remove()
    with pytest.raises(ConfigError, match=r"no place for run-time files.*another user's"):
        RuntimeHome.make(places)


def test_a_place_without_room_is_passed_over(tmp_path: Path) -> None:
    """A full disk under the data folder does not keep a server from starting; nothing is left there."""
    places = [tmp_path / "full", tmp_path / "good"]
    checked: list[Path] = []

    def check(path: Path, room_bytes: int) -> None:
        checked.append(path)
        if "full" in path.parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reserve(path, room_bytes)

    reserve = runtime_home._check_room
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime_home, "_check_room", check)
        home = RuntimeHome.make(places, 2**20)
    assert home.folder.parent == tmp_path / "good"
    assert len(checked) == 2
    assert not list((tmp_path / "full").iterdir())
    assert not list(home.folder.iterdir())
    home.remove()


def test_a_live_server_s_folder_is_never_touched(tmp_path: Path) -> None:
    """Several servers have their folders in one place; only those of dead ones are swept."""
    homes = [tmp_path / "run"]
    first, second, dead = (RuntimeHome.make(homes) for _ in range(3))
    (dead.folder / "metrics").mkdir()
    os.close(dead.descriptor)
    (tmp_path / "run" / "other").mkdir()
    sweep([*homes, tmp_path / "absent"])
    assert first.folder.is_dir()
    assert second.folder.is_dir()
    assert not dead.folder.exists()
    assert (tmp_path / "run" / "other").is_dir()
    first.remove()
    second.remove()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["other"]


@pytest.mark.process
def test_what_a_dead_server_has_left_running_is_ended(
    dead: tuple[Path, subprocess.Popen[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even a stopped process, which would hold the port for ever."""
    folder, orphan = dead
    monkeypatch.setattr(runtime_home, "ORPHAN_TIMEOUT_S", 0.1)
    sweep([tmp_path / "run"])
    assert orphan.wait(10) == -signal.SIGKILL
    assert not folder.exists()


@pytest.mark.process
@pytest.mark.parametrize("note", [b"", b"{}", b'[{"pid": 1}]', b"[1]", b'[{"pid": "x"}]'])
def test_a_damaged_note_of_processes_ends_nothing(
    dead: tuple[Path, subprocess.Popen[bytes]], tmp_path: Path, note: bytes
) -> None:
    """The folder is swept all the same."""
    folder, orphan = dead
    (folder / runtime_home.PROCESSES).write_bytes(note)
    sweep([tmp_path / "run"])
    assert not folder.exists()
    assert orphan.poll() is None


def test_a_folder_that_vanishes_is_made_anew_and_locked_again(tmp_path: Path) -> None:
    """A server that starts later leaves it alone, as it did before."""
    home = RuntimeHome.make([tmp_path / "run"])
    home.note_processes([os.getpid()])
    assert not home.keep()
    (home.folder / runtime_home.PROCESSES).unlink()
    assert not home.keep()
    assert (home.folder / runtime_home.PROCESSES).exists()
    home.folder.rename(tmp_path / "gone")
    assert home.keep()
    assert not home.keep()
    assert (home.folder / runtime_home.PROCESSES).exists()
    sweep([tmp_path / "run"])
    assert home.folder.is_dir()
    (tmp_path / "run").rename(tmp_path / "gone too")
    (tmp_path / "run").write_text("")  # no folder can be there
    with pytest.raises(OSError, match=r"exists|directory"):
        home.keep()


def test_what_must_not_be_lost_has_no_name(tmp_path: Path) -> None:
    """Heartbeats, the journal, rates and readiness are as they were when the folder is gone."""
    runtime_dir = RuntimeDir.make(tmp_path / "server", engines=2, http_processes=2)
    assert [path.name for path in runtime_dir.folder.iterdir()] == ["metrics"]
    assert runtime_dir.metrics.stat().st_mode & 0o777 == 0o700
    was_serving = runtime_dir.is_serving
    assert not was_serving
    runtime_dir.note_serving()
    runtime_dir.metrics.rmdir()
    runtime_dir.folder.rmdir()
    assert runtime_dir.is_serving
    runtime_dir.ensure()
    assert runtime_dir.metrics.is_dir()
    runtime_dir.close()
