"""The engines that are compared in process: the worker that runs each, and the settings that a sweep tries."""

import json
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
PEERS_PYTHON: Final = HERE.parent / ".venv-peers/bin/python"
Setting = dict[str, int]
# Far beyond what any answer takes: a worker that hangs must not keep the others from being measured.
ANSWER_TIMEOUT_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine in a comparison.

    Attributes:
        name: Its name in the tables.
        script: Name of its script in `workers/`.
        precision: Second argument of the script.
        settings: The settings that a sweep tries.
        is_peer: Whether it is another project's engine.
    """

    name: str
    script: str
    precision: str
    settings: tuple[Setting, ...]
    is_peer: bool = True


def engines_of(cores: int) -> dict[str, list[Engine]]:
    """Return the engines of each table; ratios are to the first of a table.

    Args:
        cores: Number of usable CPUs.
    """
    budgets = [{"budget": b} for b in (256, 512, 1024)]
    ct2 = [
        {"inter": inter, "intra": cores // inter, "budget": budget}
        for inter in sorted({1, cores})
        for budget in (256, 512, 1024, 2048)
    ]
    openvino = [
        {"streams": streams, "threads": cores, "budget": budget}
        for streams in sorted({1, cores})
        for budget in (512, 2048)
    ]
    batches = tuple({"threads": cores, "batch": b} for b in (8, 32))
    return {
        "fp32": [
            Engine("ctranslate2", "ctranslate2_engine", "float32", tuple(ct2)),
            Engine("nestvec", "nestvec_engine", "fp32", tuple(budgets), is_peer=False),
            Engine("sentence-transformers", "sentence_transformers_engine", "fp32", batches),
            Engine("fastembed", "fastembed_engine", "fp32", batches),
            Engine("openvino", "openvino_engine", "f32", tuple(openvino)),
        ],
        "8 and 16 bit": [
            Engine("ctranslate2 int8", "ctranslate2_engine", "int8", tuple(ct2)),
            Engine("nestvec int8", "nestvec_engine", "int8", tuple(budgets), is_peer=False),
            Engine(
                "nestvec int8-accurate",
                "nestvec_engine",
                "int8-accurate",
                tuple(budgets),
                is_peer=False,
            ),
            Engine("nestvec bf16", "nestvec_engine", "bf16", tuple(budgets), is_peer=False),
            Engine("openvino bf16", "openvino_engine", "bf16", tuple(openvino)),
        ],
    }


@dataclass
class Worker:
    """The process of an engine, and what was measured of it.

    Attributes:
        engine: The engine.
        process: Its process, which speaks `workers/protocol.py`.
        versions: Versions of its packages.
        best: The fastest setting on each load.
        seconds_per_token: Seconds per token in each round, by load.
        query_s: Seconds of each single query.
        rss_mb: Peak memory in MB.
    """

    engine: Engine
    process: "subprocess.Popen[str]"
    versions: dict[str, str] = field(default_factory=dict)
    best: dict[str, Setting] = field(default_factory=dict)
    seconds_per_token: dict[str, list[float]] = field(default_factory=dict)
    query_s: list[float] = field(default_factory=list)
    rss_mb: float = 0.0

    def ask(
        self,
        texts: list[str],
        setting: Setting,
        *,
        each: bool = False,
        with_vectors: bool = False,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> dict[str, Any]:
        """Time the engine on texts, all at once or one by one.

        Args:
            texts: The texts.
            setting: The engine's setting.
            each: Whether to embed them one by one.
            with_vectors: Whether the answer has all vectors, as `vectors`.
            timeout_s: After so long the worker is killed.

        Raises:
            SystemExit: The process ended.
        """
        assert self.process.stdin is not None
        request = {"texts": texts, "setting": setting, "each": each, "vectors": with_vectors}
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            # It has ended, and what is read next says so.
            pass
        answer = self.read(timeout_s)
        self.rss_mb = max(self.rss_mb, answer["rss_mb"])
        return answer

    def read(self, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
        """Read one line of its answers; after so many seconds the worker is killed.

        Raises:
            SystemExit: The process ended.
        """
        assert self.process.stdout is not None
        timer = threading.Timer(timeout_s, self.process.kill)
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise SystemExit(
                f"{self.engine.name} ended with status {self.process.wait()}; its words are above"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """Close its input, upon which it ends, and wait for that; by force if it does not end in 30 s."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
            self.process.wait(30)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


def start(engine: Engine, folder: Path, exported: Path) -> Worker:
    """Start an engine and wait until it is loaded.

    Args:
        engine: The engine.
        folder: Folder of the model's files.
        exported: Folder of the padded graph that Nestvec exported of the model.
    """
    script = HERE / "workers" / f"{engine.script}.py"
    python = PEERS_PYTHON if engine.is_peer else Path(sys.executable)
    process = subprocess.Popen(
        [python, str(script), str(folder), engine.precision, str(exported)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    worker = Worker(engine, process)
    try:
        worker.versions = worker.read()["ready"]
    except BaseException:
        process.kill()
        process.wait()
        raise
    return worker
