"""schemathesis over the whole OpenAPI document: no crash, and every answer is one that the document describes.

Whether bad data is refused is not checked: unknown fields and floats that are whole numbers are accepted on purpose,
as clients of each dialect send them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import running_server
from tests.support.tiny import write_tiny_bert

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
# Without a time of its own the run ends by its cases, so that a busy machine leaves no operation out.
SECONDS = os.environ.get("FUZZ_S")
CASES = ("--phases", "examples,fuzzing", "--max-examples", "8")
# Its phase of coverage has 4,000 cases: half a minute.
TIMED_CASES = (
    *("--phases", "examples,coverage,fuzzing"),
    *("--max-examples", "100000", "--max-time", SECONDS or ""),
)
MIN_CASES = int(os.environ.get("FUZZ_CASES", "300"))


@pytest.mark.process
@pytest.mark.timeout(int(SECONDS or 480) + 120)
def test_the_document_holds(tmp_path: Path) -> None:
    """A real server with a tiny model answers as its document says."""
    model = write_tiny_bert(tmp_path / "model")
    # By the name that the document's examples ask for, so that those reach the model.
    settings = {"model": model, "served_model_name": "all-MiniLM-L6-v2"}
    with running_server(tmp_path, cache_dir=tmp_path / "cache", **settings) as server:
        line = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
            *("--checks", ",".join(CHECKS)),
            *(TIMED_CASES if SECONDS else CASES),
            *("--seed", os.environ.get("FUZZ_SEED", "1")),
            *("--continue-on-failure", "--no-color"),
            *("--suppress-health-check", "all", "--generation-database", "none"),
            *("--report", "json", "--report-json-path", str(tmp_path / "report.json")),
        ]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
        # The server lives, and has logged no failure of its own.
        assert server.process.poll() is None
        assert "request_crashed" not in server.logs()
    assert done.returncode == 0, done.stdout[-6000:]
    report = json.loads((tmp_path / "report.json").read_text())
    cases = report["test_cases"]
    print(f"{cases['generated']} cases over {report['operations']['tested']} operations")
    assert report["operations"]["tested"] == report["operations"]["total"]
    assert cases["generated"] >= MIN_CASES
