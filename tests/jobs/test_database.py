"""The database of files and batches: what its making says."""

import subprocess
import sys
from pathlib import Path

OPEN = """
import sys
from nestvec.jobs.database import open_database
from nestvec.observability.logs import configure_logs
configure_logs(level="info", style="json")
open_database("sqlite:///" + sys.argv[1]).dispose()
"""


def test_a_new_database_is_made_quietly(tmp_path: Path) -> None:
    """The library that makes the tables logs each step at info as if it were ours; an operator sees none of it."""
    file = tmp_path / "jobs.db"
    line = [sys.executable, "-c", OPEN, str(file)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert file.stat().st_size > 0
    assert done.stderr == ""
