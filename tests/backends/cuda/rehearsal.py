"""The real CUDA provider on a fake device (`fake_cuda.c`), to see what it decides on the host without a GPU.

For each family and precision it checks that every node that computes is placed on CUDA, that a run is one copy in and
one out, that attention takes a fused kernel, and that launches can be captured, with no copy among them. Then come the
scenes of `rehearsal_scenes.py`: short memory, several cards, loading beside serving. Values mean nothing there; the
emulation's tests compare those. Needs onnxruntime-gpu and a C compiler: `make gpu-rehearsal`.

Usage: python -m tests.backends.cuda.rehearsal [FAMILY or SCENE ...]
"""

import sys
import tempfile
from pathlib import Path

from nestvec.errors import FormatError, ProviderError
from nestvec.export.device_graph import DeviceExportOptions, export_device_graph
from nestvec.export.graph.builder import FloatType
from nestvec.export.graph.inputs import DeviceAttention
from nestvec.tools.diagnostics.attention_kernels import DEBUG
from nestvec.tools.diagnostics.device_run import DeviceRun, read_run

from tests.backends.cuda.fake_device import FakeCuda, build_library, run_on_fake
from tests.backends.cuda.rehearsal_scenes import SCENES, copy_problems, play, play_here
from tests.backends.cuda.test_graphs import FEWER_HEADS, wide
from tests.export.families.harness import Family, all_families, load

MAX_TOKENS = 40
MODULE = "tests.backends.cuda.rehearsal"
COPIES = "COPIES "
# Heads as wide as kernels require; the tiny models' own heads are for tests of arithmetic.
HEADS: dict[str, dict[str, object]] = {
    "bidirectional_pplx_qwen3": {"head_dim": 128},
    "eurobert": {"head_dim": 16},
    "gemma": {"head_dim": 64},
    "gemma2": {"head_dim": 64},
    "gemma3_text": {"head_dim": 64},
    "gemma3_text~causal": {"head_dim": 64},
    "llama": {"head_dim": 64},
    "llama_bidirec": {"head_dim": 64},
    "m2m_100": {"encoder_attention_heads": 2},
    "mistral": {"head_dim": 64},
    "qwen2": {"head_dim": 64},
    "nomic_bert~experts": {"n_head": 2},
    "qwen3": {"head_dim": 128},
    **FEWER_HEADS,
    **{
        name: {"num_attention_heads": 2}
        for name in ("albert", "bert", "camembert", "electra", "ernie", "roberta", "xlm-roberta")
    },
    "distilbert": {"n_heads": 2},
}
# Heads of 6 values: no fused kernel takes them, and without one nothing is captured.
ODD_HEADS = ("jina_bert~six-heads", "t5", "t5~gated")
EXPECTED_OF_ODD = ("fused", "captured", "plain run")
EXPORTS = (
    DeviceExportOptions(FloatType.FP16, DeviceAttention.PAGED),
    DeviceExportOptions(FloatType.FP16, DeviceAttention.PACKED),
    DeviceExportOptions(FloatType.BF16, DeviceAttention.PAGED),
    DeviceExportOptions(FloatType.FP32, DeviceAttention.PACKED),
)


def rehearse(
    family: Family, options: DeviceExportOptions, library: Path
) -> tuple[DeviceRun, list[str]]:
    """Export a family's graph and run it on the fake device, in a process of its own.

    Returns:
        Where it ran, and what is wrong with its copies.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        family.write(folder)
        graph = folder / "model.onnx"
        export_device_graph(folder, family.config, graph, options)
        completed = run_on_fake(
            library, [MODULE, "--run", str(graph)], **{DEBUG: "1", "FAKE_CUDA_LAUNCH_US": "20"}
        )
        run = read_run(completed.stdout, completed.stderr, completed.returncode)
        lines = completed.stdout.splitlines()
        copies = next(line[len(COPIES) :] for line in lines if line.startswith(COPIES))
        return run, [copies] if copies else []


def run_here(graph: str) -> None:
    """Run a graph in this process, into which the fake was preloaded, and print what it copied."""
    cuda = FakeCuda()
    from nestvec.tools.diagnostics import device_run

    device_run.main(graph, str(MAX_TOKENS), "0")
    problems = copy_problems(Path(graph), cuda)
    print(COPIES + "; ".join(problems), flush=True)


def rehearse_families(names: list[str], library: Path) -> int:
    """Rehearse families in all precisions and print a table; returns how many graphs have problems."""
    failures = 0
    for name in names:
        family = wide(name, **HEADS[name]) if name in HEADS else load(name)
        for options in EXPORTS:
            label = f"{name:<28}{options.float_type:<10}{options.attention:<8}"
            try:
                run, copies = rehearse(family, options, library)
            except FormatError as error:
                print(f"{label}-  {error.message}")
                continue
            except ProviderError as error:
                print(f"{label}FAILED  {error.message}")
                failures += 1
                continue
            kernels = sorted({f"{k.op}: {k.kernel}" for k in run.attention_kernels})
            nodes = sum(run.placement.get("CUDAExecutionProvider", {}).values())
            problems = run.problems + copies
            if not run.captured:
                problems.append("nothing was captured")
            if name in ODD_HEADS:
                problems = [p for p in problems if not any(word in p for word in EXPECTED_OF_ODD)]
            failures += bool(problems)
            verdict = "; ".join(problems) or "ok"
            print(
                f"{label}{nodes:>5} nodes, {run.captured} sizes  {', '.join(kernels)}  {verdict}",
                flush=True,
            )
    return failures


def main(names: list[str]) -> int:
    """Rehearse families and scenes, all by default; returns the exit status."""
    families = [name for name in names if name not in SCENES]
    scenes = [name for name in names if name in SCENES]
    if not names:
        families, scenes = all_families(), list(SCENES)
    with tempfile.TemporaryDirectory() as folder:
        library = build_library(Path(folder))
        failures = sum(play(scene, library) for scene in scenes)
        failures += rehearse_families(families, library)
    return int(failures > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run_here(sys.argv[2])
    elif sys.argv[1:2] == ["--scene"]:
        play_here(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
