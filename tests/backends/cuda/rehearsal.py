"""The real CUDA provider on a fake device (`fake_cuda.c`), to see what it decides on the host without a GPU.

For each family and precision it checks that every node that computes is placed on CUDA, that nothing is copied on the
way, that attention takes a fused kernel, and that launches can be captured. Values mean nothing there; the emulation's
tests compare those. Needs onnxruntime-gpu and a C compiler: `make gpu-rehearsal`.

Usage: python -m tests.backends.cuda.rehearsal [FAMILY ...]
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
from functools import partial
from pathlib import Path

from nestvec.errors import FormatError, ProviderError
from nestvec.export.device_graph import DeviceExportOptions, export_device_graph
from nestvec.export.graph.builder import FloatType
from nestvec.export.graph.inputs import DeviceAttention
from nestvec.tools.diagnostics.attention_kernels import DEBUG
from nestvec.tools.diagnostics.device_run import DeviceRun, read_run

from tests.backends.cuda.test_graphs import FEWER_HEADS, wide
from tests.export.families.harness import Family, all_families, load

HERE = Path(__file__).parent
MAX_TOKENS = 40
MODULE = "tests.backends.cuda.rehearsal"
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
EXPORTS = (
    DeviceExportOptions(FloatType.FP16, DeviceAttention.PAGED),
    DeviceExportOptions(FloatType.FP16, DeviceAttention.PACKED),
    DeviceExportOptions(FloatType.BF16, DeviceAttention.PAGED),
    DeviceExportOptions(FloatType.FP32, DeviceAttention.PACKED),
)


def build_library(folder: Path) -> Path:
    """Compile the fake library into a folder; CUDA's headers come with its runtime's package."""
    headers = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "include"
    library = folder / "libcuda.so.1"
    source = str(HERE / "fake_cuda.c")
    subprocess.run(
        ["cc", "-w", "-O1", "-shared", "-fPIC", f"-I{headers}", "-o", str(library), source],
        check=True,
    )
    return library


def rehearse(family: Family, options: DeviceExportOptions, library: Path) -> DeviceRun:
    """Export a family's graph and run it on the fake device, in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        family.write(folder)
        graph = folder / "model.onnx"
        export_device_graph(folder, family.config, graph, options)
        environment = {
            **os.environ,
            DEBUG: "1",
            "LD_PRELOAD": str(library),
            "LD_LIBRARY_PATH": str(library.parent),
            "FAKE_CUDA": str(library),
        }
        completed = subprocess.run(
            [sys.executable, "-m", MODULE, "--run", str(graph)],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
            timeout=300,
        )
        return read_run(completed.stdout, completed.stderr, completed.returncode)


def run_here(graph: str) -> None:
    """Run a graph in this process, into which the fake was preloaded."""
    import onnxruntime
    from nestvec.backends import ort
    from nestvec.backends.cuda import onnx_session, runtime
    from nestvec.tools.diagnostics import device_run

    setattr(runtime, "RUNTIME_NAMES", (os.environ["FAKE_CUDA"],))  # noqa: B010 - the constant is final
    # There is no fake of cuDNN; the provider starts without it too.
    without_cudnn = partial(onnxruntime.preload_dlls, cudnn=False, directory="")
    for module in (ort, onnx_session):
        setattr(module, "find_libraries", without_cudnn)  # noqa: B010 - a module has no such attribute for mypy
    device_run.main(graph, str(MAX_TOKENS), "0")


def main(names: list[str]) -> int:
    """Rehearse the families, all by default, and print a table; returns the exit status."""
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        library = build_library(Path(folder))
        for name in names or all_families():
            family = wide(name, **HEADS[name]) if name in HEADS else load(name)
            for options in EXPORTS:
                label = f"{name:<28}{options.float_type:<10}{options.attention:<8}"
                try:
                    run = rehearse(family, options, library)
                except FormatError as error:
                    print(f"{label}-  {error.message}")
                    continue
                except ProviderError as error:
                    print(f"{label}FAILED  {error.message}")
                    failures += 1
                    continue
                kernels = sorted({f"{k.op}: {k.kernel}" for k in run.attention_kernels})
                nodes = sum(run.placement.get("CUDAExecutionProvider", {}).values())
                problems = run.problems + ([] if run.captured else ["nothing was captured"])
                if name in ODD_HEADS:
                    expected = ("fused", "captured")
                    problems = [
                        problem
                        for problem in problems
                        if not any(word in problem for word in expected)
                    ]
                failures += bool(problems)
                verdict = "; ".join(problems) or "ok"
                print(
                    f"{label}{nodes:>5} nodes, {run.captured} sizes  {', '.join(kernels)}  {verdict}",
                    flush=True,
                )
    return int(failures > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run_here(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
