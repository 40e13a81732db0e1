"""Runs all engines in turn, round by round, in one run; writes a table of ratios.

Each engine is a process that stays loaded and idles while the others run. A sweep finds each one's best setting on
each load first; then come the rounds, interleaved, so that a slow moment of the machine hits everyone. The least
time of several rounds counts: noise only ever adds.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

from benchmarks.loads import LOADS, texts_of

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent
PEERS_PYTHON: Final = ROOT / ".venv-peers/bin/python"
SWEEP_ROUNDS: Final = 2
BASE: Final = "ctranslate2"
Setting = dict[str, int]


def settings_of(cores: int) -> dict[str, list[Setting]]:
    """What each engine may choose from."""
    return {
        "nestvec": [{"budget": b} for b in (256, 512, 1024)],
        "ctranslate2": [
            {"inter": inter, "intra": cores // inter, "budget": budget}
            for inter in (1, cores)
            for budget in (512, 1024, 2048)
        ],
        "sentence-transformers": [{"threads": cores, "batch": b} for b in (8, 32)],
    }


@dataclass
class Worker:
    """An engine's process."""

    name: str
    process: "subprocess.Popen[str]"
    versions: dict[str, str] = field(default_factory=dict)
    best: dict[str, Setting] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def ask(self, texts: list[str], setting: Setting) -> dict[str, Any]:
        """Time the engine on texts."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"texts": texts, "setting": setting}) + "\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        """One line of its answers."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(
                f"{self.name} ended with status {self.process.wait()}; its words are above"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


def start(name: str, python: Path, folder: Path) -> Worker:
    """Start an engine and wait until it is loaded."""
    script = HERE / "workers" / f"{name.replace('-', '_')}_engine.py"
    if name == "nestvec":
        script = HERE / "workers/nestvec_engine.py"
    process = subprocess.Popen(
        [python, str(script), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    worker = Worker(name, process)
    worker.versions = worker.read()["ready"]
    return worker


def sweep(worker: Worker, load: str, texts: list[str], settings: list[Setting]) -> None:
    """Remember the setting that is fastest on a load."""
    took = {
        index: min(worker.ask(texts, setting)["seconds"] for _ in range(SWEEP_ROUNDS))
        for index, setting in enumerate(settings)
    }
    worker.best[load] = settings[min(took, key=lambda index: took[index])]


def count_tokens(texts: list[str], folder: Path) -> int:
    """Tokens of a load after truncation, by the model's own tokenizer."""
    from app.engine.tokenizer import Tokenizer
    from app.engine.types import Truncation

    tokenizer = Tokenizer(folder / "tokenizer.json", max_tokens=256, vocabulary_size=10**9)
    return sum(len(e.ids) for e in tokenizer.encode_texts(texts, truncate=Truncation.END))


def cpu_name() -> str:
    """The processor, and what of its vector units matters."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    pairs = (line.split(":", 1) for line in info.splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in pairs}
    units = [
        u
        for u in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
        if u in fields["flags"].split()
    ]
    family = f"family {fields['cpu family']} model {fields['model']}"
    return f"{fields['model name']}, {family}, {' '.join(units)}"


def table(workers: list[Worker], tokens: dict[str, int], rounds: int, cores: int) -> str:
    """The results as Markdown."""
    lines = [
        f"# In process, fp32, {date.today().isoformat()}",  # noqa: DTZ011 - a person's date
        "",
        f"{cpu_name()}; {cores} cores; Python {platform.python_version()}; "
        + ", ".join(f"{k} {v}" for w in workers for k, v in w.versions.items())
        + ".",
        f"Texts in, unit vectors out, tokenising included. {rounds} interleaved rounds, texts unique; the least time "
        f"of each counts. Ratios are to {BASE} (higher is faster); in brackets the spread, median over least time.",
        "",
        "| load | tokens | " + " | ".join(w.name for w in workers) + " |",
        "|---|---|" + "---|" * len(workers),
    ]
    base = next((w for w in workers if w.name == BASE), workers[0])
    for load, count in tokens.items():
        cells = []
        for worker in workers:
            least = min(worker.seconds[load])
            spread = statistics.median(worker.seconds[load]) / least
            ratio = min(base.seconds[load]) / least
            cells.append(f"{ratio:.2f} ({spread:.2f}) {count / least:,.0f} tok/s")
        lines.append(f"| {load} | {count} | " + " | ".join(cells) + " |")
    lines += ["", "Best settings found by the sweep:", ""]
    lines += [
        f"- {w.name}: " + "; ".join(f"{load} {w.best[load]}" for load in tokens) for w in workers
    ]
    return "\n".join(lines) + "\n"


def check_agreement(workers: list[Worker], text: str) -> None:
    """Engines that give other vectors are not compared."""
    first = [w.ask([text], next(iter(w.best.values())))["check"] for w in workers]
    for worker, values in zip(workers, first, strict=True):
        if any(abs(a - b) > 1e-3 for a, b in zip(values, first[0], strict=True)):  # noqa: PLR2004 - fp32
            raise SystemExit(
                f"{worker.name} gives other vectors than {workers[0].name}: {values} {first[0]}"
            )


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model's files")
    parser.add_argument(
        "--data", type=Path, help="folder with short.txt, paragraph.txt, long.txt, mix.jsonl"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--out", type=Path, help="file to write; default benchmarks/results/<cpu>.md"
    )
    asked = parser.parse_args()
    from app.hardware import usable_cpus

    cores = usable_cpus()
    settings = settings_of(cores)
    data = asked.data if asked.data and asked.data.is_dir() else None
    pythons = dict.fromkeys(settings, PEERS_PYTHON) | {"nestvec": Path(sys.executable)}
    workers = [start(name, pythons[name], asked.model) for name in settings]
    tokens: dict[str, int] = {}
    for load in LOADS:
        texts = texts_of(load, data, seed=0)
        for worker in workers:
            sweep(worker, load, texts, settings[worker.name])
            print(f"{load}: {worker.name} is best at {worker.best[load]}", file=sys.stderr)
    check_agreement(workers, "This is an example sentence")
    for number in range(1, asked.rounds + 1):
        for load in LOADS:
            texts = texts_of(load, data, seed=number)
            tokens[load] = count_tokens(texts, asked.model)
            for worker in workers:
                per_token = worker.ask(texts, worker.best[load])["seconds"] / tokens[load]
                worker.seconds.setdefault(load, []).append(per_token)
        print(f"round {number} of {asked.rounds}", file=sys.stderr)
    # Rounds differ a little in tokens: seconds are kept per token, and shown for the last round's.
    for worker in workers:
        worker.seconds = {
            load: [s * tokens[load] for s in all_] for load, all_ in worker.seconds.items()
        }
    report = table(workers, tokens, asked.rounds, cores)
    slug = "".join(c if c.isalnum() else "-" for c in cpu_name().split(", avx")[0].lower()).strip(
        "-"
    )
    out = asked.out or HERE / "results" / f"{slug}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(report, "utf-8")
    print(report)
    for worker in workers:
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        worker.process.wait(30)


if __name__ == "__main__":
    main()
