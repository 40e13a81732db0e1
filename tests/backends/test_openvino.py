"""The OpenVINO backend: right where the CPU has bfloat16, a clear refusal elsewhere."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nestvec.backends.open import open_backend
from nestvec.backends.openvino import OpenVinoBackend
from nestvec.engine.backend import Backend, BackendOptions
from nestvec.engine.core.collate import collate
from nestvec.engine.types import Layout
from nestvec.errors import BackendError, FormatError, ProviderError
from nestvec.model_store.artefacts.precision import BuildOptions, Precision
from nestvec.model_store.package import Package, prepare
from nestvec.model_store.sources.fetch import SourceOptions
from nestvec.system.cpus import cpu_model

from tests.backends.test_onnx import write_padded
from tests.support.fakes import item

has_bf16 = pytest.mark.skipif(
    not {"avx512_bf16", "amx_int8"} & set(cpu_model().split()),
    reason="this CPU has neither AVX512_BF16 nor AMX",
)
BF16 = BackendOptions(computes_bf16=True, parallel_runs=2)


@pytest.fixture(scope="module")
def package(tiny_folder: Path, tiny_cache: Path) -> Package:
    """The tiny BERT in bf16, past the gate."""
    options = SourceOptions(cache_dir=tiny_cache, card_dirs=(), is_offline=True)
    build = BuildOptions(Precision.BF16)
    return prepare(str(tiny_folder), options, open_backend, wanted=build)


def states(backend: Backend, *texts: list[int]) -> list[np.ndarray]:
    """Of each text, run as one batch."""
    batch = collate([item(*ids) for ids in texts], backend.layout)
    hidden = backend.run(batch).hidden
    assert hidden is not None
    assert hidden.dtype == np.float32
    return np.split(hidden, batch.offsets[1:-1])


@has_bf16
def test_vectors_are_close_to_fp32(package: Package, tiny_package: Package) -> None:
    """Together and alone; what comes back is float32, computed in bfloat16."""
    backend = open_backend(package.graph, package.layout, BF16)
    assert isinstance(backend, OpenVinoBackend)
    exact = open_backend(tiny_package.graph, tiny_package.layout, BackendOptions())
    random = np.random.default_rng(1)
    texts = [random.integers(0, 128, n).tolist() for n in (3, 24, 1, 7, 7)]
    together = states(backend, *texts)
    alone = [states(backend, ids)[0] for ids in texts]
    for ids, one, other in zip(texts, together, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=0.05)
        truth = states(exact, ids)[0]
        difference = float(np.abs(one - truth).max())
        assert 1e-6 < difference < 0.1
    assert backend.hidden_size == 32
    assert backend.cost(np.array([10, 10])) > 20
    backend.close()


@has_bf16
def test_failures_keep_their_text_to_themselves(package: Package) -> None:
    """As with the other runtime."""
    backend = open_backend(package.graph, package.layout, BF16)
    batch = collate([item(1, 2)], Layout.PACKED)
    wrong = {**batch.arrays, "positions": np.zeros((2, 2), np.float32)}
    with pytest.raises(BackendError, match=r"^OpenVINO failed on this batch$"):
        backend.run(replace(batch, arrays=wrong))


@has_bf16
def test_padded_graphs_of_others_run_too(tmp_path: Path) -> None:
    """States without padding come back."""
    write_padded(tmp_path / "model.onnx")
    backend = open_backend(tmp_path / "model.onnx", Layout.PADDED, BF16)
    assert [s.tolist() for s in states(backend, [1, 2], [3])] == [
        [[3, 4, 5], [6, 7, 8]],
        [[9, 10, 11]],
    ]


@has_bf16
@pytest.mark.parametrize("content", [b"", b"not a graph"])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is named."""
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(FormatError, match=r"model\.onnx"):
        open_backend(tmp_path / "model.onnx", Layout.PACKED, BF16)


def test_without_the_package_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an optional extra."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ProviderError, match=r"nestvec\[openvino\]"):
        OpenVinoBackend(tmp_path / "model.onnx", Layout.PACKED, BF16)


def test_a_cpu_without_bfloat16_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO would compute in float32 and say nothing."""

    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            return (
                ["FP32", "INT8"] if (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES") else []
            )

    monkeypatch.setattr("openvino.Core", Core)
    with pytest.raises(ProviderError, match="AVX512_BF16"):
        OpenVinoBackend(tmp_path / "model.onnx", Layout.PACKED, BF16)
