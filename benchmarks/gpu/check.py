"""Measures everything that needs a GPU: parity, speed, memory, HTTP; within minutes, the most telling things first.

Each step runs in a process of its own, which may hang or lose the card without taking the others with it. What it finds
is in OUT/results.jsonl at once; OUT/report.md is made of that. A second run with the same OUT measures what is missing,
and what failed, once more.
Compare cards and peers by ratios within one run only.

Usage: python -m benchmarks.gpu.check --out OUT [--steps first,encoders] [--models minilm-l6,bge-base] [--deadline 540]
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from nestvec.assembly.execution import machine_key
from nestvec.backends.open import open_backend
from nestvec.backends.providers import gpus
from nestvec.errors import BackendLostError

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.journal import DeadlineError, Journal, Measurement
from benchmarks.gpu.report import promises, report
from benchmarks.gpu.steps import STEPS
from benchmarks.gpu.workshop import Workshop
from benchmarks.models import ALL, DEBERTA, Sizes

RESULTS: Final = Path(__file__).parents[1] / "results"
# Statuses of a step's process.
LOST, NO_TIME = 75, 76
# A step whose process died goes on behind what it was at.
MAX_STARTS: Final = 3
# A step begins only where so much time is left: its process alone takes some.
LEAST_S: Final = 10.0


def run_step(bench: Bench, name: str) -> int:
    """Run a step in this process, and return the status that it ends with; whatever fails is in the journal."""
    try:
        STEPS[name].run(bench)
    except DeadlineError:
        return NO_TIME
    except BackendLostError:
        return LOST
    except BaseException as error:  # outside of a measurement: in what it takes to begin one
        about = Measurement(name, "", "", "step")
        bench.journal.end(about, {"error": f"{type(error).__name__}: {error}"})
        if isinstance(error, KeyboardInterrupt):
            raise
    return 0


def run_steps(arguments: argparse.Namespace, deadline: float) -> None:
    """Run steps, each in a process of its own, until the deadline; what a process was at when it ended has failed."""
    journal_file = arguments.out / "results.jsonl"
    for name in arguments.steps.split(","):
        for _ in range(MAX_STARTS):
            left_s = deadline - time.time()
            if left_s < LEAST_S:
                print(f"{name}: no time left", flush=True)
                return
            status = _step_process(arguments, name, deadline, min(left_s, STEPS[name].budget_s))
            # Whoever ends this process finds the report of what there is.
            write_report(arguments)
            if status in (0, NO_TIME):
                break
            reason = "its time was up" if status is None else f"the process ended with {status}"
            Journal(journal_file).give_up_unfinished(reason)
            if status is None:
                break


def _step_process(
    arguments: argparse.Namespace, name: str, deadline: float, seconds: float
) -> int | None:
    """Run a step in a process of its own; returns its status, None where it was ended as its time was up."""
    with (arguments.out / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [*_command(arguments), "--child", name, "--until", str(deadline)],
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=seconds)
            status: int | None = process.returncode
        except subprocess.TimeoutExpired:
            _end_group(process)
            output, _ = process.communicate()
            status = None
        log.write(output)
    lines = output.decode(errors="replace").splitlines()
    print("\n".join(line for line in lines if line.startswith(name)), flush=True)
    return status


def _command(arguments: argparse.Namespace) -> list[str]:
    names = ("out", "work", "models", "texts", "tokens", "seconds", "batches", "budgets", "sts")
    flags = [text for name in names for text in (f"--{name}", str(getattr(arguments, name)))]
    return [sys.executable, "-m", "benchmarks.gpu.check", *flags]


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a process and those that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)


@contextmanager
def preparing(arguments: argparse.Namespace) -> Iterator[None]:
    """Have another process make models, graphs and references meanwhile, in the order in which they are wanted."""
    with (arguments.out / "prepare.log").open("ab") as log:
        command = ["nice", "-n", "5", *_command(arguments), "--child", "prepare"]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            _end_group(process)
            process.wait()


def bench_of(arguments: argparse.Namespace, deadline: float) -> Bench:
    """Return the bench that the arguments describe."""
    workshop = Workshop(arguments.work, open_backend, arguments.texts)
    return Bench(
        workshop,
        Journal(arguments.out / "results.jsonl", deadline),
        open_backend,
        models_of(arguments),
        arguments.out,
        tokens=arguments.tokens,
        budgets=[int(budget) for budget in arguments.budgets.split(",")],
        seconds=arguments.seconds,
        batches=arguments.batches,
        sts=arguments.sts,
    )


def models_of(arguments: argparse.Namespace) -> Sequence[Sizes]:
    """Return the models that were asked for, in the order in which they tell most."""
    return [sizes for sizes in ALL if sizes.name in arguments.models.split(",")]


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("build/gpu-check"), help="for results, report and logs"
    )
    parser.add_argument(
        "--work", type=Path, default=None, help="for models; kept, for the next run"
    )
    parser.add_argument("--steps", default=",".join(STEPS), help=f"of {', '.join(STEPS)}")
    parser.add_argument("--models", default=",".join(sizes.name for sizes in ALL))
    parser.add_argument("--deadline", type=float, default=540.0, help="seconds for all steps")
    parser.add_argument("--texts", type=int, default=100, help="for parity")
    parser.add_argument("--tokens", type=int, default=400_000, help="of a load")
    parser.add_argument("--budgets", default="4096,16384,32768", help="tokens of batches")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the part about memory")
    parser.add_argument(
        "--batches", type=int, default=2000, help="that must leave no memory behind"
    )
    sts = Path(os.environ.get("DATA", "data")) / "stsb" / "test.tsv"
    parser.add_argument("--sts", type=Path, default=sts, help="test split of STS-B")
    parser.add_argument("--keep", type=Path, default=None, help="a further file for the report")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=float("inf"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = set(arguments.steps.split(",")) - set(STEPS)
    if unknown:
        parser.error(f"no step {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}")
    return arguments


def main() -> None:
    """Measure, and write the report."""
    arguments = parse()
    if arguments.child == "prepare":
        workshop = Workshop(arguments.work, open_backend, arguments.texts)
        workshop.prepare(models_of(arguments), [DEBERTA])
        return
    if arguments.child:
        sys.exit(run_step(bench_of(arguments, arguments.until), arguments.child))
    if not gpus():
        raise SystemExit("gpu-check needs a GPU: the driver shows none (see `nestvec doctor`)")
    arguments.out = arguments.out.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    scratch = None
    if arguments.work is None:
        arguments.work = scratch = Path(tempfile.mkdtemp(prefix="nestvec-gpu-"))
    deadline = time.time() + arguments.deadline
    Journal(arguments.out / "results.jsonl").forget_failures()
    try:
        with preparing(arguments):
            run_steps(arguments, deadline)
    finally:
        write_report(arguments)
        journal = Journal(arguments.out / "results.jsonl")
        print("\n".join([*promises(journal), f"\nall of it: {arguments.out}"]), flush=True)
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def write_report(arguments: argparse.Namespace) -> None:
    """Write the report of what is in the journal."""
    card = gpus()[0].name
    title = [
        f"{card}, {datetime.now(UTC):%Y-%m-%d}",
        f"{machine_key(card)}. Made by `make gpu-check`.",
    ]
    journal = Journal(arguments.out / "results.jsonl")
    peak = journal.find("", "", "peak")
    if peak is not None:
        title.append(f"Dense half-precision peak {peak['operations_per_s'] / 1e12:,.0f} TFLOP/s.")
    text = "\n".join(report(journal, title)) + "\n"
    name = "-".join(card.lower().split())
    for file in (arguments.out / "report.md", arguments.keep or RESULTS / f"{name}.md"):
        file.write_text(text)


if __name__ == "__main__":
    main()
