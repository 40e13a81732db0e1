"""What a million tokens cost on this machine: seconds, and joules by its meters or by an estimate."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from nestvec.corpus.reports.frame import Figure, Figures, Need, Report, Task
from nestvec.corpus.reports.probes import read_probes
from nestvec.corpus.reports.statistics.blocks import blocks
from nestvec.corpus.reports.statistics.energy import EnergyMeter, gpu_reader
from nestvec.corpus.reports.statistics.resampling import mean_figure
from nestvec.corpus.reports.statistics.sampling import drawn, drawn_note
from nestvec.errors import FormatError

MILLION: Final = 1e6
RUN_TEXTS: Final = 64
MAX_TEXTS: Final = 32 * RUN_TEXTS
MAX_S: Final = 20.0
REPEATS: Final = 4
SECONDS: Final = "seconds for a million tokens"
JOULES: Final = "joules for a million tokens"
RATE: Final = "tokens a second"
KWH_J: Final = 3.6e6


def measure(task: Task) -> Figures:
    """Run texts in groups, past any cache, for at most twenty seconds; what they cost is theirs, less idle work.

    Raises:
        FormatError: The source of vectors counts no time.
    """
    run = task.subject.time_run
    if run is None:
        raise FormatError("this source of vectors does not tell time and tokens")
    texts = drawn(task.data.texts, MAX_TEXTS, task.seed) or _probe_texts()
    groups = list(blocks(texts, RUN_TEXTS))
    run(groups[0])  # what is loaded or compiled at a first run is not the model's cost
    meter = EnergyMeter(read_gpus=gpu_reader() if task.subject.provider == "cuda" else None)
    seconds: list[float] = []
    tokens, elapsed_s = 0, 0.0
    for group in groups:
        task.check()
        counted = run(group)
        tokens += counted.tokens
        elapsed_s += counted.elapsed_s
        seconds.append(counted.elapsed_s / max(1, counted.tokens) * MILLION)
        if elapsed_s > MAX_S:
            break
    joules, how = meter.joules()
    figures = [
        mean_figure(SECONDS, np.array(seconds), unit="s", better="lower"),
        Figure(RATE, MILLION / float(np.mean(seconds)), tokens, unit="1/s", better="higher"),
    ]
    if task.subject.runs_here:
        figures.append(
            Figure(JOULES, joules / max(1, tokens) * MILLION, tokens, unit="J", better="lower")
        )
        notes = [f"Energy: {how}. Whatever else ran on this machine is in it."]
    else:
        notes = [
            "Energy is not measured of a server over HTTP: run the report on its machine, or post it to the server."
        ]
    notes += drawn_note(len(task.data.texts), MAX_TEXTS, "texts")
    return Figures(figures, notes=notes)


def advise(figures: Figures) -> list[str]:
    """Put the figures in kilowatt-hours and hours."""
    seconds, joules = figures.value(SECONDS), figures.get(JOULES)
    text = f"a thousand million tokens take {seconds * 1000 / 3600:.1f} hours here"
    if joules is not None:
        text += f" and {joules.value * 1000 / KWH_J:.2f} kWh"
    return [text]


def _probe_texts() -> Sequence[str]:
    """Return plain sentences of several lengths."""
    sentences: list[str] = read_probes("bitext")["en"]
    return [" ".join(sentences[: 1 + number % 8]) for number in range(RUN_TEXTS * REPEATS)]


REPORT: Final = Report(
    name="cost",
    title="What a million tokens cost on this machine: seconds and joules.",
    measure=measure,
    advise=advise,
    takes=(Need.TEXTS,),
    source="wall time of runs past the cache; energy of RAPL and NVML, else estimated from CPU seconds",
)
