"""What a tuning run found, for people."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nestvec.model_store.artefacts.execution_settings import Tuned
from nestvec.tools.tuning.search import Timing


@dataclass(frozen=True, slots=True)
class PrecisionTiming:
    """One precision at the settings found.

    Attributes:
        tokens_per_s: At its best round; None where it cannot run.
        cosine: Mean cosine to fp32 on the probe texts.
        reason: Why it cannot run.
    """

    precision: str
    tokens_per_s: float | None = None
    cosine: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TuningReport:
    """All of it."""

    machine: str
    precision: str
    tuned: Tuned
    timings: Sequence[Timing]
    file: Path
    precisions: Sequence[PrecisionTiming] = field(default_factory=tuple)


def tuning_table(report: TuningReport) -> str:
    """Plain text: every candidate with its ratio to its stage's slowest, then what was kept."""
    lines = [report.machine, f"precision {report.precision}", ""]
    for stage in dict.fromkeys(timing.stage for timing in report.timings):
        timings = [timing for timing in report.timings if timing.stage == stage]
        slowest = min(timing.tokens_per_s for timing in timings)
        lines.append(f"{stage:<12}{'tokens/s':>10}  ratio")
        for timing in timings:
            mark = "  <- kept" if timing.is_chosen else ""
            ratio = timing.tokens_per_s / slowest
            value = _value(stage, timing.candidate)
            lines.append(f"  {value:<10}{timing.tokens_per_s:>10,.0f}  {ratio:5.2f}{mark}")
        lines.append("")
    if report.precisions:
        lines += [*_precisions(report.precisions), ""]
    tuned = report.tuned
    lines += [
        f"max_batch_tokens {tuned.max_batch_tokens}, worker_threads {tuned.worker_threads}, "
        f"intra_op_threads {tuned.intra_op_threads}, plain_attention_tokens {tuned.plain_attention_tokens}, "
        f"lone_threads {tuned.lone_threads}",
        f"kept in {report.file}; `nestvec serve` uses it from its next start",
    ]
    return "\n".join(lines)


def _value(stage: str, candidate: Tuned) -> str:
    if stage == "threads":
        return f"{candidate.worker_threads} x {candidate.intra_op_threads}"
    if stage == "budget":
        return str(candidate.max_batch_tokens)
    return str(candidate.lone_threads if stage == "lone" else candidate.plain_attention_tokens)


def _precisions(precisions: Sequence[PrecisionTiming]) -> list[str]:
    base = next((p.tokens_per_s for p in precisions if p.tokens_per_s), None)
    lines = [f"{'precision':<16}{'tokens/s':>10}  ratio  cosine to fp32"]
    for one in precisions:
        if one.tokens_per_s is None or base is None:
            lines.append(f"  {one.precision:<14}{'-':>10}  {one.reason}")
        else:
            ratio = one.tokens_per_s / base
            lines.append(
                f"  {one.precision:<14}{one.tokens_per_s:>10,.0f}  {ratio:5.2f}  {one.cosine:.5f}"
            )
    return lines
