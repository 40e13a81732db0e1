"""Threads that help inside a run, and the core that they keep off."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from nestvec.backends import thread_placement
from nestvec.backends.thread_placement import ThreadPlacement, begun_threads, current_core

CORES = sorted(os.sched_getaffinity(0))
several_cores = pytest.mark.skipif(len(CORES) == 1, reason="the machine has one core only")


@contextmanager
def sleeper() -> Iterator[threading.Thread]:
    """Have a thread, not yet begun, that sleeps until the block ends."""
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait, daemon=True)
    try:
        yield thread
    finally:
        ended.set()
        if thread.ident is not None:
            thread.join()


def until_gone(thread: threading.Thread) -> None:
    """Wait until the system knows a thread no more: it is joined a moment before."""
    thread.join()
    while (thread_placement.TASKS / str(thread.native_id)).exists():
        time.sleep(0.001)


def test_the_threads_that_a_function_begins_are_known() -> None:
    """Those of another caller at the same time are not, nor one that has ended; the caller keeps its own name."""
    own = thread_placement.TASKS / str(threading.get_native_id()) / "comm"
    before = own.read_text()
    with sleeper() as mine, sleeper() as foreign:

        def begin() -> str:
            mine.start()
            other_caller.start()
            until_gone(other_caller)
            return "begun"

        other_caller = threading.Thread(target=begun_threads, args=(foreign.start, "foreign"))
        result, threads = begun_threads(begin, "inside")
        assert (result, threads) == ("begun", (mine.native_id,))
    assert own.read_text() == before


def test_a_function_that_fails_leaves_the_name() -> None:
    """What it raised is raised."""
    own = thread_placement.TASKS / str(threading.get_native_id()) / "comm"
    before = own.read_text()
    with pytest.raises(ZeroDivisionError):
        begun_threads(lambda: 1 // 0, "inside")
    assert own.read_text() == before


def test_a_system_without_names_of_threads_has_no_ids(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The function is called all the same."""
    monkeypatch.setattr(thread_placement, "TASKS", tmp_path / "none")
    assert begun_threads(lambda: 7, "inside") == (7, ())


@several_cores
def test_helpers_keep_off_the_core_of_the_thread_that_they_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever that is; they may run on all others."""
    with sleeper() as helper:
        helper.start()
        assert helper.native_id is not None
        placement = ThreadPlacement((helper.native_id,))
        try:
            for core in CORES[:2]:
                monkeypatch.setattr(thread_placement, "current_core", lambda core=core: core)
                placement.keep_apart()
                assert os.sched_getaffinity(helper.native_id) == set(CORES) - {core}
        finally:
            os.sched_setaffinity(helper.native_id, CORES)


def test_the_core_of_the_caller_is_one_of_its_own() -> None:
    """And that one which it is bound to."""
    try:
        for core in CORES:
            os.sched_setaffinity(0, {core})
            assert current_core() == core
    finally:
        os.sched_setaffinity(0, CORES)


def test_on_a_single_core_helpers_stay_where_they_are() -> None:
    """There is no other that they could be kept on."""
    with sleeper() as helper:
        helper.start()
        assert helper.native_id is not None
        placement = ThreadPlacement((helper.native_id,))
        os.sched_setaffinity(0, {CORES[0]})
        try:
            placement.keep_apart()
        finally:
            os.sched_setaffinity(0, CORES)
        assert os.sched_getaffinity(helper.native_id) == set(CORES)
        assert placement.threads == (helper.native_id,)


@several_cores
def test_a_thread_that_is_gone_is_forgotten() -> None:
    """The others are kept apart all the same."""
    gone = threading.Thread(target=int)
    gone.start()
    until_gone(gone)
    with sleeper() as helper:
        helper.start()
        assert gone.native_id is not None
        assert helper.native_id is not None
        placement = ThreadPlacement((gone.native_id, helper.native_id))
        placement.keep_apart()
        assert placement.threads == (helper.native_id,)
        assert len(os.sched_getaffinity(helper.native_id)) == len(CORES) - 1


@several_cores
def test_a_system_that_allows_no_moves_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a sandbox that forbids the call."""

    def forbidden(thread: int, cores: set[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    placement = ThreadPlacement((threading.get_native_id(),))
    placement.keep_apart()
    assert placement.threads == ()


def test_nothing_is_asked_where_no_threads_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems that have none of this."""
    monkeypatch.setattr(thread_placement, "current_core", None)
    placement = ThreadPlacement()
    placement.keep_apart()
    assert placement == ThreadPlacement()
