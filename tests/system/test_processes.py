"""Processes are known so that no other one is ever killed in their place."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from nestvec.system.processes import ProcessId, end_processes

pytestmark = pytest.mark.process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that sleeps."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def test_a_process_is_known_by_its_start_too(sleeper: subprocess.Popen[bytes]) -> None:
    """One that has got its number since, or has it after the machine was started again, is another one."""
    process = ProcessId.of(sleeper.pid)
    assert process is not None
    assert process.is_alive()
    assert ProcessId.from_json(process.as_json()) == process
    for other in (
        replace(process, started_ticks=process.started_ticks - 1),
        replace(process, boot="another"),
    ):
        assert not other.is_alive()
        assert not other.kill()
        assert end_processes([other], 5.0) == 0
    assert sleeper.poll() is None
    assert process.kill()
    assert sleeper.wait(10) == -signal.SIGKILL
    assert not process.is_alive()
    assert not process.kill()


def test_a_stopped_process_is_killed_when_its_time_is_over(
    sleeper: subprocess.Popen[bytes],
) -> None:
    """One that ends by itself is waited for; one that does not is killed."""
    os.kill(sleeper.pid, signal.SIGSTOP)
    process = ProcessId.of(sleeper.pid)
    assert process is not None
    assert end_processes([process], 0.1) == 1
    assert sleeper.wait(10) == -signal.SIGKILL


def test_a_zombie_has_ended() -> None:
    """A process that only its parent still has to learn of runs no more."""
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read()  # it has closed its output: it ends
        known = ProcessId.of(process.pid)
        assert known is None or end_processes([known], 5.0) == 0
