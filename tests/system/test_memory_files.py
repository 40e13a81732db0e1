"""Files without a name: processes share them, and nothing of them lies anywhere."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nestvec.ipc.status_page import StatusPage
from nestvec.system.memory_files import MemoryFile


def beat(file: MemoryFile) -> None:
    """Note a heartbeat; the target of a process."""
    StatusPage(file.path).beat(7.0, is_ready=True)


@pytest.mark.process
def test_a_process_that_is_started_with_one_shares_it() -> None:
    """What a child writes is read by its parent, and outlives the child."""
    file = MemoryFile.make("nestvec-test")
    page = StatusPage(file.path)
    process = multiprocessing.get_context("spawn").Process(target=beat, args=(file,))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert page.heartbeat() == (7.0, True, 0.0)
    file.close()
    assert page.heartbeat().beat_s == 7.0  # what is mapped stays


def test_it_is_empty_and_gets_its_size_at_once() -> None:
    """Its size can say something to all who share it."""
    file = MemoryFile.make("nestvec-test")
    assert file.size_bytes == 0
    file.resize(3)
    assert file.size_bytes == 3
    assert file.path.read_bytes() == bytes(3)
    file.close()


def test_where_the_system_has_none_it_is_a_file_without_a_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is left in the folder for temporary files."""
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    file = MemoryFile.make("nestvec-test")
    file.resize(5)
    assert file.path.read_bytes() == bytes(5)
    assert not list(tmp_path.iterdir())
    file.close()


def test_programs_that_are_started_do_not_get_it() -> None:
    """Only a process that is meant to have it does."""
    file = MemoryFile.make("nestvec-test")
    number = int(file.path.name)
    code = f"import os; os.fstat({number})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert b"Bad file descriptor" in done.stderr
    file.close()
