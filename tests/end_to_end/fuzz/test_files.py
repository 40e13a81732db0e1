"""Mutated files of others: each is read, or refused by an error that says why."""

import logging
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.fuzz.targets import TARGETS, cases

# A target: some hundreds of files, or seconds of them. `make fuzz-files` gives each minutes.
IS_LONG = "FUZZ_FILES_S" in os.environ
SECONDS = float(os.environ.get("FUZZ_FILES_S", "2"))
FILES = sys.maxsize if IS_LONG else 500
MIN_FILES = 20  # also where the machine is busy
SEED = int(os.environ.get("FUZZ_SEED", "1"))
MAX_FINDINGS = 5


@pytest.fixture(autouse=True)
def _nothing_is_logged() -> Iterator[None]:
    """Keep what is logged of files out of the tests' reports: half a character in one ends a worker of pytest-xdist."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.timeout(SECONDS + 120)
def test_no_file_surprises_its_parser(name: str, tmp_path: Path) -> None:
    """No mutated file raises anything but an error of ours; a file that does is kept in the folder .fuzz."""
    until = time.monotonic() + SECONDS
    count, findings = 0, []
    for error in cases(name, tmp_path, SEED):
        count += 1
        if error is not None:
            copy = Path(".fuzz") / f"{name.replace(' ', '-')}-{count}"
            shutil.copytree(tmp_path, copy, dirs_exist_ok=True)
            report = "".join(traceback.format_exception(error))[-1500:] + f"kept in {copy}"
            findings.append(report.encode("utf-8", "backslashreplace").decode())
        is_over = count >= FILES or (time.monotonic() > until and count > MIN_FILES)
        if is_over or len(findings) >= MAX_FINDINGS:
            break
    print(f"{name}: {count} files, {len(findings)} findings")
    assert not findings, "\n\n".join(findings)
