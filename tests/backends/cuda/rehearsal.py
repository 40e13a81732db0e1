"""The real CUDA provider on a device that is none (`fake_cuda.c`): what it decides on the host, without a GPU.

For each family and precision: every node that computes is placed on CUDA, nothing is copied on the way, attention takes
a fused kernel, and launches can be captured. Values mean nothing there; those are tested on the emulation. Needs
onnxruntime-gpu and a C compiler: `make gpu-rehearsal`.

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
from nestvec.export.device_graph import DeviceRecipe, export_device_graph
from nestvec.export.graph.builder import FloatType
from nestvec.export.graph.inputs import DeviceRoute
from nestvec.tools.diagnostics.attention_kernels import DEBUG
from nestvec.tools.diagnostics.device_run import DeviceRun, read_run

from tests.backends.cuda.test_graphs import FEWER_HEADS, wide
from tests.export.families.harness import Family, all_families, load

HERE = Path(__file__).parent
LENGTH = 40
MODULE = "tests.backends.cuda.rehearsal"
# Heads as wide as kernels ask; those of the tiny models are for tests of arithmetic.
HEADS: dict[str, dict[str, object]] = {
    "eurobert": {"head_dim": 16},
    "gemma3_text": {"head_dim": 64},
    "gemma3_text~causal": {"head_dim": 64},
    "llama": {"head_dim": 64},
    "mistral": {"head_dim": 64},
    "qwen2": {"head_dim": 64},
    "qwen3": {"head_dim": 128},
    **FEWER_HEADS,
    **{
        name: {"num_attention_heads": 2}
        for name in ("bert", "camembert", "electra", "roberta", "xlm-roberta")
    },
    "distilbert": {"n_heads": 2},
}
# Heads of 6 values: no kernel is fused for them, and without one nothing is captured.
ODD_HEADS = ("jina_bert~six-heads", "t5", "t5~gated")
RECIPES = (
    DeviceRecipe(FloatType.FP16, DeviceRoute.PAGED),
    DeviceRecipe(FloatType.FP16, DeviceRoute.PACKED),
    DeviceRecipe(FloatType.BF16, DeviceRoute.PAGED),
    DeviceRecipe(FloatType.FP32, DeviceRoute.PACKED),
)


def build_library(folder: Path) -> Path:
    """Compile the fake; CUDA's headers come with its runtime's package."""
    headers = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "include"
    library = folder / "libcuda.so.1"
    source = str(HERE / "fake_cuda.c")
    subprocess.run(
        ["cc", "-w", "-O1", "-shared", "-fPIC", f"-I{headers}", "-o", str(library), source],
        check=True,
    )
    return library


def rehearse(family: Family, recipe: DeviceRecipe, library: Path) -> DeviceRun:
    """Run a family's graph on it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        family.write(folder)
        graph = folder / "model.onnx"
        export_device_graph(folder, family.config, graph, recipe)
        environment = {
            **os.environ,
            DEBUG: "1",
            "LD_PRELOAD": str(library),
            "LD_LIBRARY_PATH": str(library.parent),
            "FAKE_CUDA": str(library),
        }
        done = subprocess.run(
            [sys.executable, "-m", MODULE, "--run", str(graph)],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
            timeout=300,
        )
        return read_run(done.stdout, done.stderr, done.returncode)


def run_here(graph: str) -> None:
    """In a process with the fake preloaded."""
    import onnxruntime
    from nestvec.backends.cuda import onnx_session
    from nestvec.backends.cuda import runtime as cuda_device
    from nestvec.tools.diagnostics import device_run

    setattr(cuda_device, "RUNTIME_NAMES", (os.environ["FAKE_CUDA"],))  # noqa: B010 - it is final for all others
    # There is no fake of cuDNN, without which the provider starts too.
    without_cudnn = partial(onnxruntime.preload_dlls, cudnn=False, directory="")
    setattr(onnx_session, "find_libraries", without_cudnn)  # noqa: B010 - it is imported there
    device_run.main(graph, str(LENGTH), "0")


def main(names: list[str]) -> int:
    """Rehearse and print a table; the exit status."""
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        library = build_library(Path(folder))
        for name in names or all_families():
            family = wide(name, **HEADS[name]) if name in HEADS else load(name)
            for recipe in RECIPES:
                label = f"{name:<28}{recipe.floats:<10}{recipe.route:<8}"
                try:
                    run = rehearse(family, recipe, library)
                except FormatError as error:
                    print(f"{label}-  {error.message}")
                    continue
                except ProviderError as error:
                    print(f"{label}FAILED  {error.message}")
                    bad += 1
                    continue
                kernels = sorted({f"{route.op}: {route.kernel}" for route in run.routes})
                nodes = sum(run.placement.get("CUDAExecutionProvider", {}).values())
                problems = run.problems + ([] if run.captured else ["nothing was captured"])
                if name in ODD_HEADS:
                    problems = [
                        one for one in problems if "fused" not in one and "captured" not in one
                    ]
                bad += bool(problems)
                verdict = "; ".join(problems) or "ok"
                print(
                    f"{label}{nodes:>5} nodes, {run.captured} sizes  {', '.join(kernels)}  {verdict}",
                    flush=True,
                )
    return int(bad > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run_here(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
