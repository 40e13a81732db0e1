"""The engines that are compared in process: the worker that runs each, and the settings that a sweep tries."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
PEERS_PYTHON: Final = HERE.parent / ".venv-peers/bin/python"
Setting = dict[str, int]


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

    def ask(self, texts: list[str], setting: Setting, *, each: bool = False) -> dict[str, Any]:
        """Time the engine on texts, all at once or one by one."""
        assert self.process.stdin is not None
        request = {"texts": texts, "setting": setting, "each": each}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.read()
        self.rss_mb = max(self.rss_mb, answer["rss_mb"])
        return answer

    def read(self) -> dict[str, Any]:
        """Read one line of its answers.

        Raises:
            SystemExit: The process ended.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(
                f"{self.engine.name} ended with status {self.process.wait()}; its words are above"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """Close its input, upon which it ends, and wait for that."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


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
    worker.versions = worker.read()["ready"]
    return worker
