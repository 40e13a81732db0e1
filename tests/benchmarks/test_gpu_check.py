"""`make gpu-check` on a machine without a GPU: its steps on the emulation with tiny models, and what joins them."""

import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nestvec.engine.types import Batch, RawOutput
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import BackendLostError
from tokenizers import Tokenizer
from typing_extensions import override

from benchmarks.gpu import check, endurance, kernels, parts
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.journal import DeadlineError, Journal, Measurement
from benchmarks.gpu.report import PROMISES, report
from benchmarks.gpu.steps import STEPS
from benchmarks.gpu.workshop import Graph, Workshop, sources_hash
from benchmarks.models import BASE, LARGE, MINILM, QWEN, TINY, Sizes, text_of, write_model
from tests.backends.cuda.host_device import HostDevice, open_anywhere
from tests.support.fakes import FakeBackend, item

DECODER = replace(
    TINY, name="tiny-decoder", kv_heads=1, head_width=16, family="qwen3", pooling="lasttoken"
)
ROTARY = replace(TINY, name="tiny-rotary", family="nomic_bert")
DEBERTA = replace(TINY, name="tiny-deberta", family="deberta-v2", max_tokens=512)
ABOUT = Measurement("first", "minilm-l6", "float16, packed", "parity")


def bench_of(tmp_path: Path, *models: Sizes) -> Bench:
    """Return a bench that opens graphs on the emulation, with loads of no size."""
    workshop = Workshop(tmp_path / "work", open_anywhere, texts=12)
    return Bench(
        workshop,
        Journal(tmp_path / "results.jsonl"),
        open_anywhere,
        models,
        tmp_path,
        tokens=300,
        budgets=(64, 128),
        seconds=0.2,
        batches=20,
        runs=3,
        sts=tmp_path / "none.tsv",
        device=HostDevice,
    )


def failures_in(bench: Bench) -> set[tuple[str, str]]:
    """Return which measurements failed, by graph and name."""
    return {(a.graph, a.what) for a, figures in bench.journal.figures() if "error" in figures}


@pytest.mark.parametrize(
    ("sizes", "steps"),
    [
        (TINY, ("first", "encoders", "captures", "padded")),
        (DECODER, ("routes",)),
        (ROTARY, ("routes",)),
    ],
    ids=lambda value: value.name if isinstance(value, Sizes) else "",
)
def test_the_steps_about_speed_and_parity_run_on_each_kind_of_model(
    tmp_path: Path, sizes: Sizes, steps: tuple[str, ...]
) -> None:
    """Parity is real here; speeds are those of the emulation, which has no bfloat16."""
    bench = bench_of(tmp_path, sizes)
    for step in steps:
        assert check.run_step(bench, step) == 0
    assert failures_in(bench) <= {("", "peak"), ("bfloat16, paged", "open")}
    parities = [f for a, f in bench.journal.figures() if a.what == "parity"]
    assert parities
    assert all(figures["min_cosine"] > 0.9999 for figures in parities)
    speeds = [f for a, f in bench.journal.figures() if a.what.startswith("speed")]
    assert all(figures["tokens_per_s"] > 0 for figures in speeds)


def test_one_reference_serves_all_graphs_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the CPU longer than the GPU all the rest."""
    bench = bench_of(tmp_path, ROTARY)
    first = bench.workshop.reference(ROTARY)
    monkeypatch.setattr(parts, "unit_vectors", None)
    again = Workshop(bench.workshop.work, open_anywhere, texts=12).reference(ROTARY)
    assert np.array_equal(first, again)


def test_what_other_code_exported_is_not_measured(tmp_path: Path) -> None:
    """The folder is kept between runs, and what is mended there is measured there."""
    file = tmp_path / "export" / "layers.py"
    file.parent.mkdir()
    file.write_text("bias = True")
    before = sources_hash(file.parent, file)
    assert before == sources_hash(file.parent, file)
    file.write_text("bias = False")
    assert before != sources_hash(file.parent, file)
    bench = bench_of(tmp_path, TINY)
    made = bench.workshop.graph(TINY, Graph()).parent.name
    assert made.startswith("tiny-float16-packed-")
    assert len(made) == len("tiny-float16-packed-") + 12


def test_memory_is_measured_on_a_full_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but 5 % and the model's room are taken, and given back."""
    monkeypatch.setattr(endurance, "FILLER_BYTES", (2**16, 2**12))
    device = HostDevice(total=2**20)
    with endurance.filled(2**16, device) as share:
        free, total = device.memory()
        assert share == 2**16 / 2**20
        assert 0 <= free - 2**16 - 0.05 * total <= 2**12
    assert device.memory() == (2**20, 2**20)
    bench = replace(bench_of(tmp_path, TINY), budgets=(16, 32), seconds=0.05)
    monkeypatch.setattr(bench, "device", lambda: HostDevice(total=2**31))
    assert check.run_step(bench, "memory") == 0
    figures = bench.journal.find(TINY.name, Graph().label, "endurance")
    assert figures is not None
    assert figures["batches"] > 0
    assert figures["failures"] == 0


def test_deberta_of_any_size_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step about what batches leave behind has a model of its own."""
    monkeypatch.setattr("benchmarks.gpu.steps.DEBERTA", DEBERTA)
    monkeypatch.setattr("benchmarks.gpu.steps.LEAK_LENGTHS", (9,))
    bench = replace(bench_of(tmp_path, TINY), batches=1)
    assert check.run_step(bench, "leak") == 0
    assert bench.journal.find(DEBERTA.name, Graph().label, "leak") is not None


def test_a_failure_is_written_down_and_the_next_measurement_goes_on(tmp_path: Path) -> None:
    """Whatever it is, an exit of a server that did not start too; in the end the journal has both."""

    def fail() -> dict[str, Any]:
        raise SystemExit("the server ended with 1")

    journal = Journal(tmp_path / "results.jsonl")
    assert journal.measure(ABOUT, fail) is None
    other = replace(ABOUT, what="speed")
    assert journal.measure(other, lambda: {"tokens_per_s": 5.0}) == {"tokens_per_s": 5.0}
    read = dict(Journal(journal.path).figures())
    assert "SystemExit: the server ended with 1" in read[ABOUT]["error"]
    assert read[other]["tokens_per_s"] == 5.0


def test_what_is_in_the_journal_is_not_measured_again(tmp_path: Path) -> None:
    """Neither what succeeded nor what failed; a line that was cut short is passed over."""
    path = tmp_path / "results.jsonl"
    Journal(path).measure(ABOUT, lambda: {"min_cosine": 1.0})
    with path.open("a") as file:
        file.write('{"step": "first", "mod')
    again = Journal(path)
    figures = again.measure(ABOUT, lambda: {"min_cosine": 0.0})
    assert figures is not None
    assert figures["min_cosine"] == 1.0


def test_a_second_run_measures_again_what_failed(tmp_path: Path) -> None:
    """And leaves alone what was measured."""
    journal = Journal(tmp_path / "results.jsonl")
    journal.measure(ABOUT, lambda: {"min_cosine": 1.0})
    other = replace(ABOUT, what="speed")
    journal.measure(other, lambda: {"tokens_per_s": 1 / 0})
    Journal(journal.path).forget_failures()
    again = Journal(journal.path)
    kept = again.measure(ABOUT, dict)
    assert kept is not None
    assert kept["min_cosine"] == 1.0
    figures = again.measure(other, lambda: {"tokens_per_s": 2.0})
    assert figures == {"tokens_per_s": 2.0}
    assert [about.what for about, _ in Journal(journal.path).figures()] == ["parity", "speed"]


def test_a_lost_card_ends_the_process_and_a_deadline_the_step(tmp_path: Path) -> None:
    """After the first nothing can be measured by this process, after the second nothing by any."""

    def lose() -> dict[str, Any]:
        raise BackendLostError("the GPU is lost")

    journal = Journal(tmp_path / "results.jsonl")
    with pytest.raises(BackendLostError):
        journal.measure(ABOUT, lose)
    late = Journal(tmp_path / "late.jsonl", deadline=time.time() - 1)
    with pytest.raises(DeadlineError):
        late.measure(ABOUT, dict)
    assert not list(late.figures())
    bench = bench_of(tmp_path, TINY)
    bench.journal.deadline = time.time() - 1
    assert check.run_step(bench, "first") == check.NO_TIME


CHILD = """
import os, sys, time
from pathlib import Path
from benchmarks.gpu.journal import Journal, Measurement
journal = Journal(Path(sys.argv[1]) / "results.jsonl")
def crash(): os._exit(139)
def hang(): time.sleep(60)
for what, work in {works}:
    journal.measure(Measurement(sys.argv[3], "m", "g", what), work)
"""


@pytest.mark.process
def test_a_process_that_dies_or_hangs_takes_only_its_measurement_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step's next process goes on behind it; where the time is up the next step begins."""
    works = {
        "first": '[("a", dict), ("b", crash), ("c", dict)]',
        "encoders": '[("a", hang), ("b", dict)]',
        "routes": '[("a", dict)]',
    }

    def command(arguments: Namespace) -> list[str]:
        codes = "{" + ", ".join(f"{n!r}: {CHILD.format(works=w)!r}" for n, w in works.items()) + "}"
        code = f"import sys; exec({codes}[sys.argv[3]])"
        return [sys.executable, "-c", code, str(arguments.out)]

    monkeypatch.setattr(check, "_command", command)
    monkeypatch.setattr(check, "gpus", lambda: [SimpleNamespace(name="NVIDIA H200")])
    monkeypatch.setattr(check, "LEAST_S", 0.0)

    class Begun(subprocess.Popen[bytes]):
        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__(command, **options)
            # However slow the machine is, the time is up only once it hangs.
            until = time.monotonic() + 60
            while "encoders" in command and time.monotonic() < until:
                if '"encoders"' in (tmp_path / "results.jsonl").read_text():
                    break
                time.sleep(0.02)

    hurried = {**STEPS, "encoders": replace(STEPS["encoders"], budget_s=0.1)}
    monkeypatch.setattr(check, "STEPS", hurried)
    monkeypatch.setattr(subprocess, "Popen", Begun)
    kept = tmp_path / "kept.md"
    arguments = Namespace(out=tmp_path, steps="first,encoders,routes", keep=kept)
    check.run_steps(arguments, time.time() + 60)
    found = {
        (about.step, about.what): figures.get("error", "")
        for about, figures in Journal(tmp_path / "results.jsonl").figures()
    }
    assert found == {
        ("first", "a"): "",
        ("first", "b"): "the process ended with 139",
        ("first", "c"): "",
        ("encoders", "a"): "its time was up",
        ("routes", "a"): "",
    }
    assert kept.read_text().startswith("# NVIDIA H200")
    assert "its time was up" in kept.read_text()


def test_the_report_says_of_every_promise_what_became_of_it(tmp_path: Path) -> None:
    """Not measured, kept, or not kept; kernels get tables of their own."""
    journal = Journal(tmp_path / "results.jsonl")
    lines = "\n".join(report(journal, ["H200"]))
    assert lines.count("| not measured |") == len(PROMISES)
    graph = Graph().label
    for sizes, share, cosine in ((BASE, 0.45, 1.0), (LARGE, 0.30, 0.95)):
        about = Measurement("encoders", sizes.name, graph, "speed 16384")
        journal.measure(about, partial(dict, tokens_per_s=1e6, share=share))
        journal.measure(replace(about, what="parity"), partial(dict, min_cosine=cosine))
    for label, speed in (("float16, paged", 2e6), ("float16, packed", 3e6)):
        about = Measurement("routes", "nomic", label, "speed 16384")
        journal.measure(about, partial(dict, tokens_per_s=speed, share=0.0))
    for what, took_s in (("captured", 1e-4), ("plain", 3e-4)):
        about = Measurement("captures", MINILM.name, graph, what)
        journal.measure(about, partial(dict, batch_s={"16": took_s}))
    table = {"batch_s": 0.01, "kernels": [["flash|fwd", 0.4, 12]]}
    journal.measure(Measurement("kernels", BASE.name, graph, "kernels"), lambda: table)
    lines = "\n".join(report(journal, ["H200"]))
    assert "at least 40 % of the dense peak | 45.0% | yes |" in lines
    assert "at least 50 % of the dense peak | 30.0% | **no** |" in lines
    assert "at least 0.950000 in 2 graphs, the least in bge-large" in lines
    assert "| `flash/fwd` | 40.0% | 12 |" in lines
    assert "nomic: 2,000,000 (float16, paged), 3,000,000 (float16, packed) tokens/s |  |" in lines
    assert "16: 3.00 |  |" in lines


def test_kernels_are_summed_by_what_they_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """The profiler's names are cuBLAS', CUTLASS' and onnxruntime's."""
    names = {
        "nvjet_hsh_128x256_64x4_2x1_v_bz_TNT": "product",
        "void flash_fwd_kernel<Flash_fwd_kernel_traits<64>>": "attention",
        "fmha_cutlassF_f16_aligned_64x64_rf_sm80": "attention",
        "void onnxruntime::contrib::cuda::SkipLayerNormKernelSmall<__half>": "norm",
        "void BiasGeluKernel<__half>": "activation",
        "Memcpy HtoD": "copy",
        "unheard of": "other",
    }
    assert {name: kernels.kind_of(name) for name in names} == names
    events = [
        SimpleNamespace(key=name, self_device_time_total=10.0 * n, count=3)
        for n, name in enumerate(names)
    ]

    class Profile:
        def __init__(self, **_: object) -> None:
            pass

        def __enter__(self) -> "Profile":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def key_averages(self) -> list[SimpleNamespace]:
            """Return an event for each kernel."""
            return events

    torch = SimpleNamespace(profile=Profile, ProfilerActivity=SimpleNamespace(CUDA=1))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(profiler=torch))
    monkeypatch.setitem(sys.modules, "torch.profiler", torch)
    runs: list[int] = []
    table = kernels.kernel_table(lambda: runs.append(1))
    assert len(runs) == 3
    assert table["kernels"][0] == ["unheard of", round(60 / 210, 4), 1]
    assert table["kinds"]["attention"] == round(30 / 210, 4)
    assert table["busy_s"] == pytest.approx(210e-6 / 3)


def test_operations_are_counted_as_papers_do() -> None:
    """A token takes twice as many as there are weights in the layers, with attention on top."""
    assert MINILM.weights_per_token == 6 * 12 * 384**2
    assert BASE.weights_per_token == pytest.approx(85e6, rel=0.01)
    assert QWEN.weights_per_token == pytest.approx(440e6, rel=0.01)
    short = BASE.operations(np.array([1]))
    assert short == pytest.approx(2 * BASE.weights_per_token, rel=0.01)
    assert BASE.operations(np.array([512])) > 512 * short


def test_texts_are_as_long_as_asked(tmp_path: Path) -> None:
    """A word is a token, so that peers run texts of the same lengths."""
    folder = write_model(TINY, tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    random = np.random.default_rng(0)
    for length in (3, 16, 200):
        assert len(tokenizer.encode(text_of(length, random)).ids) == length


def test_padding_makes_all_of_a_batch_as_long_as_the_longest() -> None:
    """There are as many inputs as before, but more tokens."""
    items = [item(*range(1, n + 1)) for n in (2, 9, 4, 5)]
    arrival = parts.as_padded(items, 2, is_sorted=False)
    assert [[each.tokens for each in batch] for batch in arrival] == [[9, 9], [5, 5]]
    in_order = parts.as_padded(items, 2, is_sorted=True)
    assert [[each.tokens for each in batch] for batch in in_order] == [[9, 9], [4, 4]]


def test_parity_sees_a_wrong_vector_and_a_neighbours_influence() -> None:
    """A wrong vector lowers the cosine, as does what is no number; a neighbour's influence raises the difference."""

    class Wrong(FakeBackend):
        off: float = 0.5

        @override
        def run(self, batch: Batch) -> RawOutput:
            """Run a batch; the states are a little off where it has several inputs."""
            raw = super().run(batch)
            assert raw.hidden is not None
            off = np.float32(self.off if len(batch.lengths) > 1 else 0.0)
            return replace(raw, hidden=raw.hidden + off)

    items = [item(n, n + 1, n + 2) for n in range(1, 30)]
    pooler = Pooler("mean")
    expected = parts.unit_vectors(FakeBackend(), pooler, [[each] for each in items])
    same = parts.parity(FakeBackend(), expected, pooler, items)
    assert same.min_cosine == pytest.approx(1)
    assert same.max_difference == 0
    wrong = parts.parity(Wrong(), expected, pooler, items)
    assert wrong.min_cosine < 0.99
    assert wrong.max_difference > 0.01
    nan = Wrong()
    nan.off = float("nan")
    assert parts.parity(nan, expected, pooler, items).min_cosine == -1
