"""Runs the few tests that failed in the last whole run once more, one at a time and with the machine to themselves.

A whole run keeps every core busy with thousands of tests beside real processes. What fails there and passes alone is a
defect still, of the test or of the code, and is printed as one; it just is no reason to throw away a day's change that
has nothing to do with it.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")
MOST_TESTS = 3
"""More than this many failures are no accident: they are not looked at again."""


def pass_alone(names: Sequence[str]) -> bool:
    """Return whether these tests pass in a process of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", *names]
    return subprocess.run(command, check=False).returncode == 0


def main(
    last_failed: Path = LAST_FAILED, passes: Callable[[Sequence[str]], bool] = pass_alone
) -> int:
    """Return 0 if what failed in the last whole run is little, and passes now."""
    failed = sorted(json.loads(last_failed.read_text())) if last_failed.is_file() else []
    if not 0 < len(failed) <= MOST_TESTS:
        return 1
    print(f"\nSecond look, alone: {', '.join(failed)}", flush=True)
    if not passes(failed):
        return 1
    print("\nFAILED BESIDE OTHERS, PASSED ALONE: each is a defect; its failure is above:")
    for name in failed:
        print(f"  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
