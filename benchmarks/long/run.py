"""Measures long texts: our server beside its peers, beside the server of another checkout, or its starts.

Each model is a contest of its own: the sides stay loaded and embed the same texts in turn. All of it is bounded by
`--limit-s`; the report is written row by row, and a side that fails is left out with what it said.
"""

import argparse
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnxruntime
from nestvec import __version__
from nestvec.system.cpus import usable_cpus
from tokenizers import Tokenizer

from benchmarks.arguments import parser_for
from benchmarks.engines import HERE, Engine
from benchmarks.long.contest import Clock, Contest
from benchmarks.long.llama import LlamaSide
from benchmarks.long.loads import SEVERAL, LongModel, TextMaker, chosen_models, loads_of
from benchmarks.long.report import Report
from benchmarks.long.sides import HttpSide, Side, WorkerSide
from benchmarks.long.starts import measure_starts
from benchmarks.models import write_model
from benchmarks.processes import Server, nestvec
from benchmarks.run import result_file

# Of the base's first start of the largest model in int8, twice over.
START_TIMEOUT_S: Final = 420.0
# llama.cpp's 8-bit type, and ours that it is held against.
PEER_TYPES: Final = {"fp32": "f32", "int8": "q8_0"}
PRECISIONS: Final = ("fp32", "int8")
# How a server is told to run on one thread.
ONE_THREAD: Final = ("--worker-threads", "1", "--lone-threads", "1")
# Nothing here is late: a text of the slowest model may take minutes.
PATIENT: Final = ("--request-timeout-s", "3600", "--batch-timeout-s", "3600")


@dataclass(frozen=True, slots=True)
class Bench:
    """Where things are, and what was asked for.

    Attributes:
        folder: Folder for models, converted models, caches and logs, kept between runs.
        base: Folder of another checkout's package, to be measured beside this one's; None: peers are.
        precisions: Precisions of ours to measure.
    """

    folder: Path
    base: Path | None
    precisions: tuple[str, ...]

    @property
    def logs(self) -> Path:
        """Folder of the servers' logs."""
        return self.folder / "logs"

    def ours(
        self,
        model: LongModel,
        precision: str,
        *flags: str,
        name: str = "nestvec",
        cache: str = "cache",
    ) -> Server:
        """Return our server of a model in a precision.

        Args:
            model: The model.
            precision: Its precision.
            flags: Further flags of `nestvec serve`.
            name: Its name in reports.
            cache: Name of its cache folder.
        """
        where = ("--model", str(self.folder / model.name), "--cache-dir", str(self.folder / cache))
        server = nestvec(name, precision, self.logs, *where, *PATIENT, *flags)
        server.ready_timeout_s = START_TIMEOUT_S
        return server

    def before(
        self, model: LongModel, precision: str, *flags: str, name: str, cache: str
    ) -> Server:
        """Return the other checkout's server of a model."""
        server = self.ours(model, precision, *flags, name=name, cache=cache)
        server.env = {"PYTHONPATH": str(self.base)}
        return server

    def contests(self, model: LongModel, longest: int) -> Iterator[Contest]:
        """Yield the contests of a model.

        Args:
            model: The model; its folder exists.
            longest: Tokens of its longest text.
        """
        tokenizer = Tokenizer.from_file(str(self.folder / model.name / "tokenizer.json"))
        texts = TextMaker(tokenizer)
        for precision in self.precisions:
            if self.base:
                yield self._beside_base(model, precision, texts)
                continue
            ours = HttpSide(self.ours(model, precision, name=f"nestvec {precision}"))
            peers = list(self._peers(model, precision, longest, tokenizer))
            if peers:
                pairs = [(ours.name, peer.name) for peer in peers]
                yield Contest(
                    f"{model.name}, {precision}", self._head(), [ours, *peers], pairs, texts
                )

    def _beside_base(self, model: LongModel, precision: str, texts: TextMaker) -> Contest:
        """Return a contest with the other checkout, on one thread and as it comes."""
        sides = [
            HttpSide(self.ours(model, precision, *ONE_THREAD, name="one thread")),
            HttpSide(
                self.before(
                    model, precision, *ONE_THREAD, name="before, one thread", cache="cache-before"
                )
            ),
            HttpSide(self.ours(model, precision, name="default")),
            HttpSide(self.before(model, precision, name="before, default", cache="cache-before")),
        ]
        pairs = [
            ("one thread", "before, one thread"),
            ("default", "before, default"),
            ("default", "one thread"),
        ]
        title = f"{model.name}, {precision}: beside the checkout before"
        return Contest(title, self._head(), list(sides), pairs, texts)

    def _head(self) -> str:
        return f"nestvec {__version__}, onnxruntime {onnxruntime.__version__}."

    def _peers(
        self, model: LongModel, precision: str, longest: int, tokenizer: Tokenizer
    ) -> Iterator[Side]:
        """Yield the peers that can run a model in a precision."""
        folder = self.folder / model.name
        if precision == "fp32":
            settings = tuple({"threads": usable_cpus(), "batch": n} for n in (1, SEVERAL))
            script = "sentence_transformers_engine"
            yield WorkerSide(Engine("sentence-transformers", script, "fp32", settings), folder)
            if model.sizes.family == "bert":
                batches = tuple({"batch": n} for n in (1, SEVERAL))
                engine = Engine("embed-anything", "embed_anything_engine", "fp32", batches)
                yield WorkerSide(engine, folder)
        if model.sizes.family == "qwen3" and precision in PEER_TYPES:
            yield LlamaSide(self.folder, model.name, PEER_TYPES[precision], longest, tokenizer)

    def starts(self, model: LongModel, report: Report) -> None:
        """Measure the starts of a model's servers, the other checkout's too if there is one."""
        servers = []
        for precision in self.precisions:
            servers.append((precision, self.ours(model, precision, cache="cache-starts")))
            if self.base:
                before = self.before(model, precision, name="before", cache="cache-starts")
                servers.append((precision, before))
        measure_starts(model.name, servers, self.folder / "cache-starts", report)


def _end(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = parser_for(__doc__, rounds=2)
    parser.add_argument(
        "--folder", type=Path, default=HERE.parent / ".bench-long", help="kept between runs"
    )
    parser.add_argument("--models", default="", help="names, comma-separated; all by default")
    parser.add_argument("--lengths", default="", help="tokens, comma-separated; each model's own")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="comma-separated")
    parser.add_argument("--base", type=Path, help="another checkout's app folder, instead of peers")
    parser.add_argument("--starts", action="store_true", help="measure starts instead of loads")
    parser.add_argument("--limit-s", type=float, default=2400.0, help="time of the whole run")
    return parser.parse_args()


def main() -> None:
    """Parse the arguments, run the benchmark, and write its report."""
    arguments = parse()
    # So that the servers are ended then too.
    signal.signal(signal.SIGTERM, _end)
    clock = Clock(arguments.limit_s)
    precisions = tuple(name for name in arguments.precisions.split(",") if name)
    base = arguments.base.resolve() if arguments.base else None
    bench = Bench(arguments.folder.resolve(), base, precisions)
    bench.logs.mkdir(parents=True, exist_ok=True)
    lengths = [int(length) for length in arguments.lengths.split(",") if length]
    report = Report(arguments.out or result_file("-long"))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for model in chosen_models(arguments.models):
        write_model(model.sizes, bench.folder / model.name, tokenizer=arguments.model)
        if arguments.starts:
            bench.starts(model, report)
            continue
        loads = loads_of(model, lengths)
        longest = max((load.length for load in loads), default=0)
        for contest in bench.contests(model, longest) if loads else ():
            contest.run(loads, arguments.rounds, clock, report)


if __name__ == "__main__":
    main()
