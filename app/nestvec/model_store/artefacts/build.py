"""Builds an artefact: the graph in the precision asked for, checked against fp32, and the probes' vectors."""

import dataclasses
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from nestvec.engine.backend import Backend, BackendFactory, BackendOptions, DeviceOptions
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.types import FloatArray, IdArray, Item, Layout, OutputKind
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import (
    BackendError,
    BackendLostError,
    FormatError,
    ModelError,
    ModelMemoryError,
    ProviderError,
    UnsuitedError,
)
from nestvec.export.architectures import (
    STATIC_TYPE,
    ExportOptions,
    export_calibration_graph,
    export_graph,
)
from nestvec.export.device_graph import export_device_graph
from nestvec.export.layers.arithmetic import (
    Arithmetic,
    ChannelRanges,
    Floating,
    PerRowInt8,
    StaticInt8,
)
from nestvec.export.layers.attention import AttentionOps
from nestvec.model_store.artefacts.activation_calibration import measure_ranges
from nestvec.model_store.artefacts.calibration_texts import calibration_texts
from nestvec.model_store.artefacts.device_build import check_suits_device, device_export_options
from nestvec.model_store.artefacts.output_quantization import calibration_vectors
from nestvec.model_store.artefacts.precision import (
    CALIBRATED,
    BuildOptions,
    Precision,
    check_quality,
)
from nestvec.model_store.artefacts.probes import (
    PROBE_TEXTS,
    check_probes,
    check_published,
    compute_vectors,
)
from nestvec.model_store.folder.model_folder import GRAPH_FILE, ModelFolder
from nestvec.model_store.heads.base import HEAD_FILE
from nestvec.model_store.sources.card import PublishedVector

log = logging.getLogger(__name__)

FAR_TOKENS: Final = 1152  # beyond the windows of the families that have short ones
MIN_DEVICE_TOKENS: Final = 1024  # of a batch: probes are about as many
REFERENCE: Final = BackendOptions(provider="cpu")
ATTENTION_OPS: Final[Mapping[Precision, AttentionOps]] = {
    Precision.FP32: AttentionOps.BY_LENGTH,
    Precision.INT8: AttentionOps.SAME_ROUNDING,
    Precision.INT8_ACCURATE: AttentionOps.SAME_ROUNDING,
    Precision.BF16: AttentionOps.PORTABLE,  # the contrib kernels are ONNX Runtime's own
}


def pooler_of_probes(kinds: Sequence[OutputKind], pooler: Pooler) -> Pooler:
    """Return the pooler that probes are compared by: the model's, or the mean where it gives no dense vectors."""
    return pooler if OutputKind.DENSE in kinds else Pooler("mean")


@dataclass(frozen=True, slots=True)
class ArtefactBuilder:
    """Builds one artefact of a model.

    Attributes:
        folder: The model's files and what they say.
        published: Values that its authors publish.
        build: Precision and storage of the artefact.
        open_backend: Opens graphs: for probes, calibration and the quality gate.
    """

    folder: ModelFolder
    published: tuple[PublishedVector, ...]
    build: BuildOptions
    open_backend: BackendFactory

    def build_artefact(self, artefact: Path) -> FloatArray:
        """Write graph and head into an artefact's folder; no graph where the model's own is served.

        Returns:
            Vectors of the probe texts by the fp32 graph on the CPU, [P, D], float32: the truth for every precision.

        Raises:
            FormatError: The model cannot be exported like that.
            ProbeError: Its vectors are not those that its authors publish.
            QualityError: The precision is too coarse for this model.
            UnsuitedError: No graph in this precision is right on the GPU.
        """
        if self.build.is_for_device:
            return self._build_for_device(artefact)
        self._check_precision()
        graph = self.folder.graph(artefact)
        if self.folder.onnx_file is None:
            probes = self._export(graph, artefact)
        else:
            probes = self._probe(graph, artefact, REFERENCE, self.published)
        if not self.build.is_exact:
            vectors = self._probe(graph, artefact, self._options())
            check_quality(vectors, probes, self.build.precision)
        return probes

    def vectors(self, artefact: Path, texts: Sequence[str]) -> FloatArray:
        """Return unit vectors of texts by an artefact's graph, [C, H], float32, in the order of their lengths.

        Raises:
            FormatError: The graph cannot be run on them.
        """
        backend = self._open(self.folder.graph(artefact), self._options())
        try:
            pooler = self.folder.head.pooler(artefact, self.open_backend)
            return calibration_vectors(backend, self.folder.open_tokenizer(), pooler, texts)
        finally:
            backend.close()

    def _check_precision(self) -> None:
        """Refuse a precision that the model cannot have on a CPU.

        Raises:
            FormatError: Says why.
        """
        precision = self.build.precision
        if precision is Precision.FP16:
            raise FormatError("precision fp16 is for GPUs; on CPU use fp32, bf16 or int8")
        if self.folder.architecture == STATIC_TYPE and precision is not Precision.FP32:
            raise FormatError(f"precision {precision}: a static model has no products")
        needs_export = precision in CALIBRATED or self.build.halves_weights
        if self.folder.onnx_file is not None and needs_export:
            raise FormatError(
                f"precision {precision} and weight_storage need an architecture that the exporter "
                f"knows, not {self.folder.onnx_file} as it is"
            )

    def _export(self, graph: Path, artefact: Path) -> FloatArray:
        """Export the graph in the precision asked for, and the head.

        Returns:
            Vectors of the probe texts by the fp32 graph, which is thrown away where another is served.
        """
        with tempfile.TemporaryDirectory(dir=artefact) as scratch:
            reference = graph if self.build.is_exact else Path(scratch) / GRAPH_FILE
            probes = self._export_reference(reference, artefact)
        if not self.build.is_exact:
            export_graph(
                self.folder.path, self.folder.config, graph, self._export_options(artefact)
            )
        return probes

    def _export_reference(self, reference: Path, artefact: Path) -> FloatArray:
        """Export the fp32 graph and the head, and return the probes' vectors, [P, D], float32."""
        options = self._with_head(ExportOptions())
        export_graph(self.folder.path, self.folder.config, reference, options)
        self.folder.head.write(artefact)
        return self._probe(reference, artefact, REFERENCE, self.published)

    def _build_for_device(self, artefact: Path) -> FloatArray:
        """Export the first graph for a GPU whose vectors are right there.

        Raises:
            UnsuitedError: There is none in this precision.
        """
        check_suits_device(self.folder, self.build)
        precision = self.build.precision
        with tempfile.TemporaryDirectory(dir=artefact) as scratch:
            reference = Path(scratch) / GRAPH_FILE
            probes = self._export_reference(reference, artefact)
            graph = self.folder.graph(artefact)
            reasons = []
            for options in device_export_options(self.folder, precision):
                try:
                    export_device_graph(self.folder.path, self.folder.config, graph, options)
                    self._check_on_device(graph, artefact, probes, reference)
                except (ProviderError, ModelMemoryError, BackendLostError):
                    raise  # the machine's fault, not the graph's
                except (ModelError, BackendError) as error:
                    reasons.append(f"{options.attention} attention: {error.message}")
                    for file in graph.parent.glob("*.onnx"):
                        if file.name != HEAD_FILE:
                            file.unlink()
                    continue
                log.info("%s on a GPU: %s attention", precision, options.attention)
                return probes
        raise UnsuitedError(f"no graph in {precision} is right on this GPU: {'; '.join(reasons)}")

    def _check_on_device(
        self, graph: Path, artefact: Path, probes: FloatArray, reference: Path
    ) -> None:
        """Compare probes, and an input that is longer than most windows, with the fp32 graph on the CPU.

        Raises:
            ProbeError: They differ in fp32.
            QualityError: They differ by more than the precision may.
            BackendError: A run failed.
        """
        options = self._options()
        check_probes(self._probe(graph, artefact, options), probes, "cuda", self.build)
        length = min(self.folder.max_tokens, FAR_TOKENS)
        random = np.random.default_rng(0)
        ids = random.integers(0, self.folder.vocabulary_size, length).astype(np.int32)
        vectors, expected = (
            self._vectors_of_ids(path, artefact, path_options, ids)
            for path, path_options in ((graph, options), (reference, REFERENCE))
        )
        check_probes(vectors, expected, "cuda", self.build)

    def _vectors_of_ids(
        self, graph: Path, artefact: Path, options: BackendOptions, ids: IdArray
    ) -> FloatArray:
        """Return the unit vector of one input of token ids, [1, D], float32."""
        backend = self._open(graph, options)
        try:
            vectors = raw_vectors(backend, [Item(ids)], self._probe_pooler(artefact))
        finally:
            backend.close()
        return finish(vectors, dimensions=None, normalize=True)

    def _options(self) -> BackendOptions:
        """Return how to open the artefact's own graph."""
        if self.build.is_for_device:
            max_tokens = self.folder.max_tokens
            device = DeviceOptions(
                max_tokens, max(max_tokens, MIN_DEVICE_TOKENS), captured_tokens=0
            )
            return BackendOptions(provider="cuda", device=device)
        is_bf16 = self.build.precision is Precision.BF16
        return BackendOptions(provider="cpu", computes_bf16=is_bf16)

    def _export_options(self, artefact: Path) -> ExportOptions:
        """Return the options of the precision asked for, calibrated where it needs that."""
        precision = self.build.precision
        arithmetic: Arithmetic = Floating()
        if precision in CALIBRATED:
            log.info("calibrating for %s", precision)
            kind = StaticInt8 if precision is Precision.INT8 else PerRowInt8
            arithmetic = kind(self._activation_ranges(artefact))
        return self._with_head(
            ExportOptions(arithmetic, ATTENTION_OPS[precision], self.build.halves_weights)
        )

    def _with_head(self, options: ExportOptions) -> ExportOptions:
        """Add to a options what the model's head needs of the graph."""
        head = self.folder.head
        has_exits = (
            OutputKind.DENSE in head.kinds and options.attention is not AttentionOps.PORTABLE
        )
        return dataclasses.replace(
            options,
            head=head.graph_head(),
            takes_token_types=head.takes_token_types,
            takes_layer_count=has_exits,
        )

    def _activation_ranges(self, artefact: Path) -> dict[str, ChannelRanges]:
        """Run the calibration texts through a calibration graph; ranges by layer."""
        texts = calibration_texts(self.build.calibration)
        with tempfile.TemporaryDirectory(dir=artefact) as scratch:
            path = Path(scratch) / GRAPH_FILE
            channels = export_calibration_graph(self.folder.path, self.folder.config, path)
            backend = self.open_backend(path, Layout.PACKED, REFERENCE)
            try:
                return measure_ranges(backend, channels, self.folder.open_tokenizer(), texts)
            finally:
                backend.close()

    def _probe(
        self,
        graph: Path,
        artefact: Path,
        options: BackendOptions,
        published: tuple[PublishedVector, ...] = (),
    ) -> FloatArray:
        """Return vectors of the probe texts, [P, D], once the graph is known to give the published values."""
        backend = self._open(graph, options)
        try:
            tokenizer = self.folder.open_tokenizer()
            pooler = self._probe_pooler(artefact)
            check_published(backend, tokenizer, pooler, published)
            return compute_vectors(backend, tokenizer, pooler, PROBE_TEXTS)
        finally:
            backend.close()

    def _probe_pooler(self, artefact: Path) -> Pooler:
        head = self.folder.head
        return pooler_of_probes(head.kinds, head.pooler(artefact, self.open_backend))

    def _open(self, graph: Path, options: BackendOptions) -> Backend:
        """Open a graph and check that it is as wide as the folder says.

        Raises:
            FormatError: It is not.
        """
        backend = self.open_backend(graph, self.folder.layout, options)
        columns = self.folder.head.columns
        if backend.info.hidden_size != columns:
            backend.close()
            raise FormatError(
                f"{graph}: gives {backend.info.hidden_size} values, config.json says {columns}"
            )
        return backend
