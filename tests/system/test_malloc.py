"""Settings of malloc, in a process of their own, since they hold for the rest of a process's life."""

import ctypes
import subprocess
import sys

import pytest
from nestvec.system.malloc import keep_freed_memory

FAULTS = """
import resource, sys
import numpy as np
from nestvec.system.malloc import keep_freed_memory
told = keep_freed_memory() if sys.argv[1] == "keep" else True
assert told
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    for size in (4 * 2**20, 16 * 2**20, 8 * 2**20, 31 * 2**20):
        del_me = np.ones(size, np.uint8)
        del del_me
# What is taken for the first time is faulted in either way.
work()
before = faults()
for _ in range(3):
    work()
print(faults() - before)
"""


def faults(how: str) -> int:
    """Count page faults of a process that takes and frees memory over and over."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt"
)
def test_freed_memory_is_used_again() -> None:
    """Regression: each batch's activations were faulted in anew."""
    assert faults("keep") < faults("leave") / 2


def test_a_c_library_without_the_call_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """MacOS has no such call."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert keep_freed_memory() is False


ARENAS = """
import ctypes, sys, threading
from nestvec.system.malloc import bound_arenas, give_back_freed_memory
assert bound_arenas(2) if sys.argv[1] == "bound" else True
together = threading.Barrier(12)
def work():
    kept = [bytes(4000) for _ in range(50)]
    together.wait()
    return kept
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
give_back_freed_memory()
ctypes.CDLL(None).malloc_stats()
"""


def arenas(how: str) -> int:
    """Count heaps of a process with a dozen threads at once, as malloc itself does."""
    done = subprocess.run(
        [sys.executable, "-c", ARENAS, how], capture_output=True, text=True, check=True
    )
    return done.stderr.count("Arena ")


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_stats"), reason="not glibc, which has heaps by thread"
)
def test_heaps_are_bounded() -> None:
    """The bound holds however many threads come."""
    assert arenas("bound") <= 2 < arenas("free")


def test_a_crash_writes_no_memory_to_disk() -> None:
    """Core dumps are forbidden for this process and those it starts."""
    code = (
        "import resource, subprocess, sys; from nestvec.system.malloc import forbid_core_dumps; forbid_core_dumps(); "
        "print(resource.getrlimit(resource.RLIMIT_CORE)); "
        "subprocess.run([sys.executable, '-c', 'import resource; print(resource.getrlimit(resource.RLIMIT_CORE))'])"
    )
    done = subprocess.run(
        [sys.executable, "-u", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split("\n")[:2] == ["(0, 0)", "(0, 0)"]
