"""Artefacts for a GPU: checked against the CPU; another attention if the first is wrong; refused if none is right."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from nestvec.assembly import execution
from nestvec.assembly.service import build_local_service
from nestvec.config.settings import Settings
from nestvec.engine.backend import Backend, BackendOptions
from nestvec.engine.observer import NullObserver
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall, Layout
from nestvec.errors import (
    BackendError,
    BackendLostError,
    BackendMemoryError,
    FormatError,
    ModelMemoryError,
    NestvecError,
    ProviderError,
    UnsuitedError,
)
from nestvec.model_store.artefacts.device_build import device_export_options
from nestvec.model_store.artefacts.precision import BuildOptions, Precision
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.package import Package, load_package
from nestvec.model_store.sources.fetch import SourceOptions
from nestvec.system.cuda_driver import Gpu

from tests.backends.cuda.host_device import open_anywhere
from tests.backends.test_onnx import write_padded
from tests.support.tiny import write_json, write_tiny_bert

FP16 = BuildOptions(Precision.FP16, is_for_device=True, machine="a GPU")


def options(tmp_path: Path) -> SourceOptions:
    """Return options with a cache below the test's folder."""
    return SourceOptions(cache_dir=tmp_path / "cache", card_dirs=(tmp_path,), is_offline=True)


def tiny_artefact(tmp_path: Path, build: BuildOptions = FP16) -> Package:
    """Load a tiny BERT with its artefact."""
    folder = write_tiny_bert(tmp_path / "model")
    return load_package(str(folder), options(tmp_path), open_anywhere, build=build)


def ops(package: Package) -> set[str]:
    """Return the kinds of nodes in a package's graph."""
    graph = onnx.load(str(package.graph), load_external_data=False).graph
    return {node.op_type for node in graph.node}


def test_a_graph_for_a_gpu_lies_beside_the_cpus_and_is_found_again(tmp_path: Path) -> None:
    """The space tells fp16 from fp32; the folder tells machines apart where vectors are the same."""
    package, cpu = tiny_artefact(tmp_path), tiny_artefact(tmp_path, BuildOptions())
    assert "PackedMultiHeadAttention" in ops(package)
    assert package.artefact.name == f"{package.spec.space}-gpu"
    assert package.spec.space != cpu.spec.space
    exact = tiny_artefact(tmp_path, BuildOptions(is_for_device=True))
    assert exact.spec.space == cpu.spec.space
    assert exact.artefact != cpu.artefact
    assert not tiny_artefact(tmp_path).is_new
    np.testing.assert_array_equal(package.probes, cpu.probes)


def test_cards_without_flash_attention_try_packed_attention_first(tmp_path: Path) -> None:
    """On a T4 paged attention copies what it has put into pages once more, as long as the longest input."""
    folder = read_model_folder(write_tiny_bert(tmp_path / "model"))
    for capability, first in (
        ("7.5", "packed"),
        ("8.0", "paged"),
        ("12.0", "paged"),
        ("", "paged"),
    ):
        tried = [
            str(each.attention)
            for each in device_export_options(folder, Precision.FP16, capability)
        ]
        assert tried[0] == first
        assert sorted(tried) == ["packed", "paged"]


def test_where_an_attention_is_wrong_another_is_taken(tmp_path: Path) -> None:
    """On a GPU whose kernels fail, the first graph does not run and the second does."""
    folder = write_tiny_bert(tmp_path / "model")
    refused: list[Path] = []

    def open_backend(path: Path, layout: Layout, backend_options: BackendOptions) -> Backend:
        if backend_options.device is not None and not refused:
            refused.append(path)
            raise BackendError("onnxruntime failed on this batch")
        return open_anywhere(path, layout, backend_options)

    package = load_package(str(folder), options(tmp_path), open_backend, build=FP16)
    metadata = onnx.load(str(package.graph), load_external_data=False).metadata_props
    assert {entry.key: entry.value for entry in metadata}["nestvec.route"] == "packed"
    assert refused


def test_a_precision_that_no_graph_is_right_in_is_not_tried_again(tmp_path: Path) -> None:
    """The refusal holds until something about the machine changes."""
    folder = write_tiny_bert(tmp_path / "model")
    tries = []

    def open_backend(path: Path, layout: Layout, backend_options: BackendOptions) -> Backend:
        if backend_options.device is not None:
            tries.append(path)
            raise BackendError("onnxruntime failed on this batch")
        return open_anywhere(path, layout, backend_options)

    for _ in range(2):
        with pytest.raises(UnsuitedError, match="packed attention: onnxruntime failed"):
            load_package(str(folder), options(tmp_path), open_backend, build=FP16)
    assert len(tries) == 2
    with pytest.raises(UnsuitedError, match=r"remove .*refused\.json to try again"):
        load_package(str(folder), options(tmp_path), open_backend, build=FP16)
    with pytest.raises(UnsuitedError):
        load_package(
            str(folder), options(tmp_path), open_backend, build=replace(FP16, machine="other")
        )
    assert len(tries) == 4


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (ProviderError("no CUDA"), ProviderError),
        (ModelMemoryError("no room"), ModelMemoryError),
        (BackendMemoryError("no room"), ModelMemoryError),
        (BackendLostError("gone"), BackendLostError),
    ],
)
def test_a_fault_of_the_machine_is_not_held_against_the_model(
    tmp_path: Path, fault: NestvecError, raised: type[NestvecError]
) -> None:
    """Libraries or memory that are missing today may be there tomorrow: nothing is remembered."""
    folder = write_tiny_bert(tmp_path / "model")

    def open_backend(path: Path, layout: Layout, backend_options: BackendOptions) -> Backend:
        if backend_options.device is not None:
            raise fault
        return open_anywhere(path, layout, backend_options)

    with pytest.raises(raised):
        load_package(str(folder), options(tmp_path), open_backend, build=FP16)
    assert tiny_artefact(tmp_path).is_new


def test_what_no_packed_graph_can_do_is_refused_by_name(tmp_path: Path) -> None:
    """A graph of its own, a precision for CPUs, and half floats without a GPU are refused."""
    folder = write_tiny_bert(tmp_path / "own")
    write_json(
        folder / "config.json",
        {
            "model_type": "unknown",
            "hidden_size": 8,
            "vocab_size": 128,
            "max_position_embeddings": 40,
        },
    )
    (folder / "onnx").mkdir()
    write_padded(folder / "onnx" / "model.onnx")
    with pytest.raises(UnsuitedError, match="as it is"):
        load_package(str(folder), options(tmp_path), open_anywhere, build=FP16)
    with pytest.raises(UnsuitedError, match="int8 is for CPUs"):
        tiny_artefact(tmp_path, replace(FP16, precision=Precision.INT8))
    with pytest.raises(FormatError, match="fp16 is for GPUs"):
        tiny_artefact(tmp_path, BuildOptions(Precision.FP16))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """Pretend a GPU, as far as the assembly can see."""
    device = Gpu(0, "H100", "9.0", 2**36, "GPU-0")
    monkeypatch.setattr(execution, "gpus", lambda: (device,))
    for module in ("execution", "package"):
        name = f"nestvec.assembly.{module}.resolve_provider"
        monkeypatch.setattr(name, lambda requested, number: "cuda")
    monkeypatch.setattr("nestvec.backends.open.open_on_gpu", open_anywhere)
    return device


@pytest.mark.usefixtures("gpu")
async def test_the_same_service_on_a_gpu_gives_the_same_vectors(tmp_path: Path) -> None:
    """From settings to vectors: fp16 unless told otherwise; dimensions cut on the device; exits."""
    folder = write_tiny_bert(tmp_path / "model")

    def settings(provider: str, **changes: object) -> Settings:
        return Settings.model_validate(
            {
                "model": str(folder),
                "cache_dir": tmp_path / "cache",
                "provider": provider,
                "offline": True,
                "allow_untrained_layers": True,
                "vector_cache_bytes": 0,
                "max_batch_tokens": 128,
                "gpu_captured_tokens": 32,
                **changes,
            }
        )

    texts = ["alpha beta", "the query of red", "one two three four green blue"]
    service = build_service_of(settings("cuda"))
    model = service.models.all()[0].model
    assert model is not None
    assert (model.spec.precision, model.core.backend_info.layers) == ("fp16", 2)
    half = await service.embed(EmbedCall(texts))
    short = await service.embed(EmbedCall(texts, dimensions=8))
    early = await service.embed(EmbedCall(texts, layers=(1,)))
    service.pool.close()
    exact = build_service_of(settings("cuda", precision="fp32"))
    expected = await exact.embed(EmbedCall(texts))
    exact_early = await exact.embed(EmbedCall(texts, layers=(1,)))
    exact.pool.close()
    assert (half.vectors * expected.vectors).sum(axis=1).min() > 0.9999
    assert (early.vectors * exact_early.vectors).sum(axis=1).min() > 0.9999
    cut = half.vectors[:, :8] / np.linalg.norm(half.vectors[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(short.vectors, cut, atol=1e-3)


def build_service_of(settings: Settings) -> EmbeddingService:
    """Build the service as the server does."""
    return build_local_service(settings, NullObserver())


@pytest.mark.usefixtures("gpu")
def test_auto_is_fp16_then_bf16_then_fp32_then_whatever_runs_on_cpu(tmp_path: Path) -> None:
    """A named precision is that or an error; fp32 of a model that cannot be packed runs as on CPU."""

    def options_of(precision: str) -> list[tuple[str, bool]]:
        settings = Settings.model_validate(
            {"model": "x", "precision": precision, "cache_dir": tmp_path}
        )
        return [
            (str(build.precision), build.is_for_device)
            for build in execution.build_options(settings, "cuda")
        ]

    assert options_of("auto") == [("fp16", True), ("bf16", True), ("fp32", True), ("fp32", False)]
    assert options_of("fp32") == [("fp32", True), ("fp32", False)]
    assert options_of("bf16") == [("bf16", True)]
    assert options_of("int8") == [("int8", True)]
