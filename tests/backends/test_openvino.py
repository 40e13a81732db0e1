"""The OpenVINO backend: close to fp32 where the CPU has bfloat16, a clear refusal elsewhere."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nestvec.backends.open import open_backend
from nestvec.backends.openvino import OpenVinoBackend
from nestvec.engine.backend import Backend, BackendOptions
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import Layout
from nestvec.errors import BackendError, FormatError, ProviderError
from nestvec.export.layers.attention import AttentionOps
from nestvec.model_store.artefacts.precision import BuildOptions, Precision
from nestvec.model_store.package import Package, load_package
from nestvec.model_store.sources.fetch import SourceOptions
from nestvec.system.cpus import cpu_model

from tests.backends.test_onnx import write_padded
from tests.export.families.test_long_inputs import long_family, open_with, states_of
from tests.support.fakes import item

has_bf16 = pytest.mark.skipif(
    not {"avx512_bf16", "amx_int8"} & set(cpu_model().split()),
    reason="this CPU has neither AVX512_BF16 nor AMX",
)
BF16 = BackendOptions(computes_bf16=True, parallel_runs=2)


@pytest.fixture(scope="module")
def package(tiny_folder: Path, tiny_cache: Path) -> Package:
    """The tiny BERT in bf16, which has passed its quality gate."""
    options = SourceOptions(cache_dir=tiny_cache, card_dirs=(), is_offline=True)
    build = BuildOptions(Precision.BF16)
    return load_package(str(tiny_folder), options, open_backend, build=build)


def states(backend: Backend, *texts: list[int]) -> list[np.ndarray]:
    """Run texts as one batch, and return the states of each, (n, H), float32."""
    batch = collate([item(*ids) for ids in texts], backend.info.layout)
    hidden = backend.run(batch).hidden
    assert hidden is not None
    assert hidden.dtype == np.float32
    return np.split(hidden, batch.offsets[1:-1])


@has_bf16
def test_vectors_are_close_to_fp32(package: Package, tiny_package: Package) -> None:
    """This holds for texts together and alone; the results are float32, computed in bfloat16."""
    backend = open_backend(package.graph, package.layout, BF16)
    assert isinstance(backend, OpenVinoBackend)
    exact = open_backend(tiny_package.graph, tiny_package.layout, BackendOptions())
    random = np.random.default_rng(1)
    texts = [random.integers(0, 128, n).tolist() for n in (3, 24, 1, 7, 7)]
    together = states(backend, *texts)
    alone = [states(backend, ids)[0] for ids in texts]
    for ids, beside, lone in zip(texts, together, alone, strict=True):
        np.testing.assert_allclose(beside, lone, atol=0.05)
        truth = states(exact, ids)[0]
        difference = float(np.abs(beside - truth).max())
        assert 1e-6 < difference < 0.1
    assert backend.info.hidden_size == 32
    assert backend.cost(np.array([10, 10])) > 20
    backend.close()


@has_bf16
@pytest.mark.parametrize("name", ["llama", "modernbert", "mistral"])
def test_long_inputs_are_close_to_fp32(tmp_path: Path, name: str) -> None:
    """Positions beyond 256, which bfloat16 cannot tell apart, and windows in blocks, mixed with short inputs."""
    family = long_family(name)
    exact = family.open(tmp_path / "padded", padded=True)
    graph = tmp_path / AttentionOps.PORTABLE / "model.onnx"
    open_with(family, tmp_path, AttentionOps.PORTABLE).close()
    backend = open_backend(graph, Layout.PACKED, BF16)
    for lengths in ((40,), (600,), (300, 5, 193)):
        vocabulary = family.config["vocab_size"]
        expected = states_of(exact, vocabulary, lengths)
        difference = np.abs(states_of(backend, vocabulary, lengths) - expected).max()
        assert difference < 0.06 * np.abs(expected).max(), lengths


@has_bf16
def test_failures_keep_their_text_to_themselves(package: Package) -> None:
    """Like ONNX Runtime's, OpenVINO's messages may quote values, which our error must not."""
    backend = open_backend(package.graph, package.layout, BF16)
    batch = collate([item(1, 2)], Layout.PACKED)
    wrong = {**batch.arrays, "positions": np.zeros((2, 2), np.float32)}
    with pytest.raises(BackendError, match=r"^OpenVINO failed on this batch$"):
        backend.run(replace(batch, arrays=wrong))


@has_bf16
def test_padded_graphs_that_others_made_run_too(tmp_path: Path) -> None:
    """Their states come back without padding."""
    write_padded(tmp_path / "model.onnx")
    backend = open_backend(tmp_path / "model.onnx", Layout.PADDED, BF16)
    assert [s.tolist() for s in states(backend, [1, 2], [3])] == [
        [[3, 4, 5], [6, 7, 8]],
        [[9, 10, 11]],
    ]


@has_bf16
@pytest.mark.parametrize("content", [b"", b"not a graph"])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """The error names the file."""
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(FormatError, match=r"model\.onnx"):
        open_backend(tmp_path / "model.onnx", Layout.PACKED, BF16)


def test_without_openvino_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO is an optional extra of the package."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ProviderError, match=r"nestvec\[openvino\]"):
        OpenVinoBackend(tmp_path / "model.onnx", Layout.PACKED, BF16)


def test_a_cpu_without_bfloat16_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO would silently compute in float32."""

    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            return (
                ["FP32", "INT8"] if (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES") else []
            )

    monkeypatch.setattr("openvino.Core", Core)
    with pytest.raises(ProviderError, match="AVX512_BF16"):
        OpenVinoBackend(tmp_path / "model.onnx", Layout.PACKED, BF16)


# In a process of its own, as it may hang for ever, and hold Python's lock meanwhile.
FIRST_USE = """
import sys, threading
from pathlib import Path
from nestvec.backends.openvino import OpenVinoBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.types import Layout
sys.setswitchinterval(1e-6)
OpenVinoBackend(Path(sys.argv[1]), Layout(sys.argv[2]), BackendOptions())
import openvino
start = threading.Barrier(4)
def ask():
    start.wait()
    openvino.Type.i64.to_dtype()
threads = [threading.Thread(target=ask) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


@has_bf16
def test_threads_that_run_first_do_not_wait_for_one_another(package: Package) -> None:
    """Regression: the library's table of dtypes, which each run asks for, held two threads that made it for ever."""
    command = [sys.executable, "-c", FIRST_USE, str(package.graph), str(package.layout)]
    assert subprocess.run(command, check=False, timeout=30).returncode == 0
