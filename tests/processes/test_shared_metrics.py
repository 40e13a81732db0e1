"""Counting in files that several processes share, and that may be deleted under them."""

import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: which files values go to is decided for all of a process.
SCRIPT = """
import shutil, sys
from pathlib import Path
from prometheus_client import CollectorRegistry, disable_created_metrics
from nestvec.observability.shared_metrics import forget_gauges, share_metrics

folder = Path(sys.argv[1])
share_metrics(folder / "metrics", "front-0")
disable_created_metrics()
from nestvec.observability.metrics import Metrics

metrics = Metrics(CollectorRegistry(), "front-0")


def scraped(name):
    text = metrics.exposition("")[0].decode()
    return [float(row.split()[-1]) for row in text.splitlines() if row.startswith(name)]

metrics.http.ignored_fields.inc(3)
assert scraped("nestvec_ignored_fields_total") == [3]
"""


def run(folder: Path, code: str) -> None:
    """Run code in a process that counts in a shared folder."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + code, folder],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.process
def test_what_was_counted_is_written_again_where_the_folder_has_vanished(tmp_path: Path) -> None:
    """A scrape shows it all; new values of any number go into the new files, which are private as the old ones were."""
    run(
        tmp_path,
        """
shutil.rmtree(folder / "metrics")
assert scraped("nestvec_ignored_fields_total") == [3]
assert (folder / "metrics").stat().st_mode & 0o777 == 0o700
for path in (folder / "metrics").iterdir():
    assert path.stat().st_blocks * 512 >= path.stat().st_size
modes = {path.stat().st_mode & 0o777 for path in (folder / "metrics").iterdir()}
assert modes == {0o600}, modes
metrics.http.ignored_fields.inc()
for number in range(5000):
    metrics.keys.requests.labels(f"key-{number}").inc()
assert scraped("nestvec_ignored_fields_total") == [4]
assert sum(scraped("nestvec_key_requests_total")) == 5000
(path,) = (folder / "metrics").glob("counter_*.db")
assert path.stat().st_size > 2**19
assert path.stat().st_blocks * 512 >= path.stat().st_size
path.unlink()
assert scraped("nestvec_ignored_fields_total") == [4]
assert sum(scraped("nestvec_key_requests_total")) == 5000
metrics.service.ready.set(1)
forget_gauges(folder / "metrics", "front-1")
assert scraped("nestvec_ready") == [1]
forget_gauges(folder / "metrics", "front-0")
assert scraped("nestvec_ready") == []  # as if its process had died
assert scraped("nestvec_ignored_fields_total") == [4]
for path in (folder / "metrics").glob("gauge_live*"):
    assert path.stat().st_blocks * 512 >= path.stat().st_size
shutil.rmtree(folder)
folder.write_text("")  # no folder can be there any more
assert scraped("nestvec_ignored_fields_total") == [4]
""",
    )
