"""`make quality`: the default model's figures over HTTP, and whether they are those its authors' weights give."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.server import command, running_server

# From the issue that asked for them: what this model reaches in other implementations.
EXPECTED = {
    ("STS-B test Spearman", "384", "float"): (0.820, 0.001),
    ("SciFact nDCG@10", "384", "float"): (0.645, 0.003),
}


def main() -> int:
    """Start a server, measure it, compare."""
    data = Path(sys.argv[1])
    if not (data / "stsb/test.tsv").is_file() or not (data / "scifact").is_dir():
        print(f"no data: {data} should hold stsb/test.tsv and scifact/ (DATA=folder)")
        return 2
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_server(Path(scratch), request_timeout_s=600) as server,
    ):
        line = command("quality", "--url", server.url, "--sts", str(data / "stsb/test.tsv"))
        line += ["--retrieval", str(data / "scifact")]
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout)
    rows = [tuple(c.strip() for c in line.split("|")[1:-1]) for line in done.stdout.splitlines()]
    found = {(task, size, dtype): float(score) for task, size, dtype, score in rows[2:] if score}
    wrong = [
        f"{' '.join(row)}: {found[row]} is not {wanted} ± {margin}"
        for row, (wanted, margin) in EXPECTED.items()
        if not abs(found[row] - wanted) <= margin
    ]
    print("\n".join(wrong) or "as expected")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
