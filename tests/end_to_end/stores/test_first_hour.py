"""A new user's first hour on a terminal: index a folder, search, change files, index again, kill -9 and go on.

With FIRST_HOUR_CLONE=1 it begins where a user does: git clone of what this checkout has committed, `make serve` there
with a home and caches of its own, `make setup EXTRAS=…` for the store. That needs a package index, and some minutes.
"""

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest
from nestvec.corpus.stores.registry import find_store

from tests.corpus.stores.cases import INSTALL
from tests.support.services import free_port

pexpect: Any = pytest.importorskip("pexpect", reason=f"a terminal is needed; {INSTALL}")

pytestmark = [
    pytest.mark.model,
    pytest.mark.process,
    pytest.mark.filterwarnings("ignore"),  # the libraries' own
    pytest.mark.timeout(1800),
]
FILES: Final = 300
# Longer pages of this repository would take most of the time.
MOST_BYTES: Final = 3000
CHECKOUT: Final = Path(__file__).parents[3]
DOCS: Final = CHECKOUT / "docs"
CLONES: Final = os.environ.get("FIRST_HOUR_CLONE") == "1"
# Of a user's environment: what a shell has anyway, and how pip reaches an index.
KEPT: Final = re.compile(r"PATH|LANG|LC_\w+|TZ|TMPDIR|PIP_\w+|SSL_\w+|\w+_proxy", re.IGNORECASE)
INSTALL_S: Final = 1200
NESTVEC: Final = (sys.executable, "-W", "ignore", "-m", "nestvec")
OPTIONS: Final = ("--chunk", "markdown", "--with-text")
WORDS: Final = [
    "tree",
    "river",
    "stone",
    "bird",
    "house",
    "water",
    "light",
    "music",
    "paper",
    "glass",
    "north",
    "garden",
    "winter",
    "bread",
]
RUN_S: Final = 500
# What a run prints at its end.
REPORT: Final = re.compile(r"(\d+) vectors.* (\d+) documents, (\d+) texts unchanged")


@dataclass(frozen=True, slots=True)
class Store:
    """A store under test.

    Attributes:
        module: The package that it needs.
        address: Its address, in the user's folder.
        committed: Returns how many rows another process has committed there.
        with_server: Whether a server embeds the texts.
    """

    module: str
    address: str
    committed: Callable[[Path], int]
    with_server: bool


def rows_in_lancedb(folder: Path) -> int:
    """Return how many rows other processes see."""
    import lancedb  # type: ignore[import-not-found] # in a venv of these tests only

    try:
        return int(lancedb.connect(folder / "index").open_table("docs").count_rows())
    except (ValueError, FileNotFoundError):
        return 0


def rows_in_qdrant(folder: Path) -> int:
    """Return how many points are in the file, which the library locks."""
    file = folder / "points/collection/docs/storage.sqlite"
    try:
        database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
        try:
            return int(database.execute("select count(*) from points").fetchone()[0])
        finally:
            database.close()
    except sqlite3.Error:
        return 0


STORES: Final = {
    "lancedb": Store("lancedb", "lancedb://index/docs", rows_in_lancedb, with_server=False),
    "qdrant": Store("qdrant_client", "qdrant://./points/docs", rows_in_qdrant, with_server=True),
}


@dataclass(frozen=True, slots=True)
class Installation:
    """A nestvec that a user has.

    Attributes:
        nestvec: Its command.
        environment: What it runs with.
        folder: The clone that `make serve` runs in; None where the server is started by its command.
    """

    nestvec: tuple[str, ...] = NESTVEC
    environment: Mapping[str, str] = field(default_factory=lambda: {**os.environ})
    folder: Path | None = None

    @contextmanager
    def serving(self, port: int, flags: Sequence[str], log: Path) -> Iterator[str]:
        """Run a server until the end of the block; gives its URL once it takes requests."""
        environment = {**self.environment, "NESTVEC_PORT": str(port)}
        command = ["make", "serve"] if self.folder else [*self.nestvec, "serve", *flags]
        # A terminal of its own, which nobody reads: so a file.
        with log.open("wb") as file:
            server = subprocess.Popen(
                command,
                env=environment,
                cwd=self.folder,
                stdout=file,
                stderr=file,
                start_new_session=True,  # make does not pass SIGKILL on
            )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url, server, log, INSTALL_S if self.folder else 120)
            yield url
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def cloned(folder: Path) -> Installation:
    """Clone what this checkout has committed, for a user who has nothing yet."""
    clone, home = folder / "nestvec", folder / "home"
    home.mkdir()
    subprocess.run(["git", "clone", "--quiet", str(CHECKOUT), str(clone)], check=True)
    kept = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
    environment = {**kept, "HOME": str(home)}
    nestvec = (str(clone / ".venv/bin/nestvec"),)
    return Installation(nestvec, environment, clone)


class Terminal:
    """A user's terminal, in a folder.

    Args:
        folder: Where commands run.
        installation: Whose commands run.
    """

    def __init__(self, folder: Path, installation: Installation) -> None:
        self._folder = folder
        self._nestvec = installation.nestvec
        self._environment = {**installation.environment, "TERM": "xterm", "COLUMNS": "120"}

    def start(self, *arguments: str) -> Any:
        """Start a nestvec command."""
        command, *rest = (*self._nestvec, *arguments)
        return pexpect.spawn(
            command,
            rest,
            cwd=self._folder,
            env=self._environment,
            dimensions=(30, 120),
            encoding="utf-8",
            timeout=RUN_S,
        )

    def run(self, *arguments: str) -> str:
        """Run a nestvec command to its end; returns what the user sees."""
        child = self.start(*arguments)
        child.expect(pexpect.EOF)
        child.close()
        shown: str = child.before
        assert child.exitstatus == 0, shown
        assert "Traceback" not in shown
        return shown


def write_documents(folder: Path) -> None:
    """Write 300 Markdown files: this repository's, and others made from their words by a seed."""
    folder.mkdir()
    own = [page for page in sorted(DOCS.rglob("*.md")) if page.stat().st_size < MOST_BYTES]
    assert own
    for page in own:
        shutil.copy(page, folder / f"{page.parent.name}-{page.name}")
    draw = random.Random(28)
    for number in range(FILES - len(own)):
        sections = [
            f"## Part {part}\n\n{' '.join(draw.choices(WORDS, k=15))}\n" for part in range(2)
        ]
        text = f"# Page {number}\n\n" + "\n".join(sections)
        (folder / f"page-{number:03d}.md").write_text(text)


@pytest.fixture(params=list(STORES.values()), ids=list(STORES))
def store(request: pytest.FixtureRequest) -> Store:
    """Each store whose package is there."""
    found: Store = request.param
    pytest.importorskip(found.module, reason=f"{found.module} is not installed; {INSTALL}")
    return found


def test_a_new_users_first_hour(store: Store, tmp_path: Path) -> None:
    """Ids stay distinct, nothing is lost, nothing comes twice, and only what has changed is embedded."""
    write_documents(tmp_path / "docs")
    installation = cloned(tmp_path) if CLONES else Installation()
    terminal = Terminal(tmp_path, installation)
    flags: tuple[str, ...] = ("--model", "all-MiniLM-L6-v2", "--worker-threads", "1")
    with ExitStack() as stack:
        if store.with_server or CLONES:
            serving = installation.serving(free_port(), flags, tmp_path / "server.log")
            url = stack.enter_context(serving)
            if store.with_server:
                flags = ("--url", url)
        if CLONES:
            extra = store.address.partition(":")[0]
            setup = ["make", "setup", f"EXTRAS={extra}"]
            subprocess.run(
                setup, cwd=installation.folder, env={**installation.environment}, check=True
            )
        embed = ("embed", "docs", store.address, *OPTIONS, *flags)
        # kill -9 in the middle, once something was committed.
        child = terminal.start(*embed)
        until = time.monotonic() + RUN_S
        while store.committed(tmp_path) == 0:
            assert child.isalive(), child.read()
            assert time.monotonic() < until
            drain(child)
        os.kill(child.pid, signal.SIGKILL)
        child.expect(pexpect.EOF)
        child.wait()
        child.close()
        committed = store.committed(tmp_path)
        _, documents, unchanged = report(terminal.run(*embed))
        assert documents == FILES
        assert 0 < unchanged < FILES
        assert committed > 0
        check_content(store, terminal, tmp_path, flags)
        # Nothing has changed, so nothing is embedded.
        vectors, _, unchanged = report(terminal.run(*embed))
        assert (vectors, unchanged) == (0, FILES)
        # Three files change: one is shorter, one longer, one has another text.
        change_three(tmp_path / "docs")
        vectors, _, unchanged = report(terminal.run(*embed))
        assert unchanged == FILES - 3
        assert 0 < vectors < 30
        check_content(store, terminal, tmp_path, flags)
        shown = terminal.run("search", store.address, "zebra crossings of Vienna", *flags[:2])
        # Before the table a terminal shows, and wipes, how far the model's opening has come.
        table = shown[shown.index("score ") :].splitlines()
        head, first, *_ = table
        assert head.split() == ["score", "id", "document", "text"]
        assert len(table) == 11
        assert "page-007.md" in first
        assert "Vienna" in first


def change_three(folder: Path) -> None:
    """Change three files."""
    pages = [folder / f"page-{number:03d}.md" for number in (3, 5, 7)]
    pages[0].write_text("# Page 3\n\nShort.\n")
    pages[1].write_text(pages[1].read_text() + "\n## More\n\n" + " ".join(WORDS) + "\n")
    pages[2].write_text("# Page 7\n\nAll about the zebra crossings of Vienna.\n")


def check_content(store: Store, terminal: Terminal, folder: Path, flags: tuple[str, ...]) -> None:
    """Compare a store with what runs into a file give: the same chunks, once each, and neighbours as near."""
    terminal.run("embed", "docs", "truth.jsonl", "--append", *OPTIONS, *flags)
    lines = [json.loads(line) for line in (folder / "truth.jsonl").read_text().splitlines()]
    wanted = {(row["document"], row["text"]) for row in lines}
    kind = find_store(store.address)
    assert kind is not None
    before = Path.cwd()
    os.chdir(folder)
    try:
        reader = kind.read(store.address)
        vectors = np.array([row["embedding"] for row in lines], "float32")
        everything = reader.search(vectors[0], 10 * len(lines))
        assert len({str(hit.id) for hit in everything}) == len(everything) == len(lines)
        assert {(hit.document, hit.text) for hit in everything} == wanted
        for query in vectors[:: len(vectors) // 20]:
            scores = np.sort(vectors @ query)[::-1][:10]
            found = [hit.score for hit in reader.search(query, 10)]
            assert found == pytest.approx(scores.tolist(), abs=1e-4)
        reader.close()
    finally:
        os.chdir(before)


def report(shown: str) -> tuple[int, int, int]:
    """Return the vectors made, the documents and the unchanged texts that a run told at its end."""
    found = REPORT.search(shown)
    assert found is not None, shown
    vectors, documents, unchanged = map(int, found.groups())
    return vectors, documents, unchanged


def drain(child: Any) -> None:
    """Take what a command shows, so that it is not held up, for a twentieth of a second."""
    try:
        child.read_nonblocking(65536, timeout=0.05)
    except (pexpect.TIMEOUT, pexpect.EOF):
        time.sleep(0.05)


def wait_until_ready(
    url: str, server: subprocess.Popen[bytes], log: Path, timeout_s: float
) -> None:
    """Wait until a server takes requests."""
    until = time.monotonic() + timeout_s
    while True:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)
