"""What a tuning run found, and its table for people."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nestvec.model_store.artefacts.execution_settings import ExecutionSettings
from nestvec.tools.tuning.search import CandidateTiming


@dataclass(frozen=True, slots=True)
class PrecisionTiming:
    """Speed and quality of one precision at the settings found.

    Attributes:
        precision: Name of the precision.
        tokens_per_s: Tokens a second in its best round; None where it cannot run.
        cosine: Mean cosine to fp32 on the probe texts; None where it cannot run.
        reason: Why it cannot run; "" where it can.
    """

    precision: str
    tokens_per_s: float | None = None
    cosine: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TuningReport:
    """Everything that a tuning run found.

    Attributes:
        machine: Key of the machine that the settings are for.
        precision: The precision that was tuned.
        tuned: The settings found.
        timings: Every candidate of every stage.
        file: Where the settings were written.
        precisions: The precisions that were compared at these settings.
    """

    machine: str
    precision: str
    tuned: ExecutionSettings
    timings: Sequence[CandidateTiming]
    file: Path
    precisions: Sequence[PrecisionTiming] = field(default_factory=tuple)


def tuning_table(report: TuningReport) -> str:
    """Return plain text: every candidate with its ratio to its stage's slowest, then the settings that were kept."""
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


def _value(stage: str, candidate: ExecutionSettings) -> str:
    if stage == "threads":
        return f"{candidate.worker_threads} x {candidate.intra_op_threads}"
    if stage == "budget":
        return str(candidate.max_batch_tokens)
    return str(candidate.lone_threads if stage == "lone" else candidate.plain_attention_tokens)


def _precisions(precisions: Sequence[PrecisionTiming]) -> list[str]:
    base = next((p.tokens_per_s for p in precisions if p.tokens_per_s), None)
    lines = [f"{'precision':<16}{'tokens/s':>10}  ratio  cosine to fp32"]
    for timing in precisions:
        name, tokens_per_s = f"{timing.precision:<14}", timing.tokens_per_s
        if tokens_per_s is None or base is None:
            lines.append(f"  {name}{'-':>10}  {timing.reason}")
        else:
            ratio = tokens_per_s / base
            lines.append(f"  {name}{tokens_per_s:>10,.0f}  {ratio:5.2f}  {timing.cosine:.5f}")
    return lines
