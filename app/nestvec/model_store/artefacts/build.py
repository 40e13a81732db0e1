"""Builds an artefact: the graph in the precision asked for, checked against fp32, and the probes' vectors."""

import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from nestvec.engine.backend import Backend, BackendOptions, DeviceOptions
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.types import FloatArray, IdArray, Item, Layout
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import (
    BackendError,
    BackendLostError,
    BackendMemoryError,
    FormatError,
    ModelError,
    ModelMemoryError,
    ProviderError,
    UnsuitedError,
)
from nestvec.export.architectures import (
    STATIC_TYPE,
    ExportOptions,
    export_graph,
    export_reference_graphs,
)
from nestvec.export.device_graph import export_device_graph
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.arithmetic import (
    Arithmetic,
    ChannelRanges,
    Floating,
    PerRowInt8,
    StaticInt8,
)
from nestvec.export.layers.attention import AttentionOps
from nestvec.model_store.artefacts.activation_calibration import measure_ranges
from nestvec.model_store.artefacts.backend_cache import BackendCache
from nestvec.model_store.artefacts.calibration_texts import calibration_texts
from nestvec.model_store.artefacts.device_build import check_suits_device, device_export_options
from nestvec.model_store.artefacts.output_quantization import calibration_vectors
from nestvec.model_store.artefacts.picture_build import export_pictures
from nestvec.model_store.artefacts.precision import (
    CALIBRATED,
    BuildOptions,
    Precision,
    check_quality,
)
from nestvec.model_store.artefacts.probes import (
    FAR_TEXT,
    MAX_TOKENS,
    PROBE_TEXTS,
    ProbeVectors,
    check_probes,
    check_published,
    pooler_of_probes,
    run_texts,
)
from nestvec.model_store.cache_files import flush_behind
from nestvec.model_store.folder.model_folder import GRAPH_FILE, ModelFolder
from nestvec.model_store.heads.base import HEAD_FILE
from nestvec.model_store.preparation import (
    Advance,
    PreparationListener,
    SilentListener,
    Step,
)
from nestvec.model_store.sources.card import PublishedVector
from nestvec.system.cpus import usable_cpus

log = logging.getLogger(__name__)

CALIBRATION_GRAPH: Final = "calibration.onnx"
FAR_TOKENS: Final = 1152  # beyond the windows of the families that have short ones
MIN_DEVICE_TOKENS: Final = 1024  # of a batch: probes are about as many
ATTENTION_OPS: Final[Mapping[Precision, AttentionOps]] = {
    Precision.FP32: AttentionOps.BY_LENGTH,
    Precision.INT8: AttentionOps.SAME_ROUNDING,
    Precision.INT8_ACCURATE: AttentionOps.SAME_ROUNDING,
    Precision.BF16: AttentionOps.PORTABLE,  # the contrib kernels are ONNX Runtime's own
}


@dataclass(frozen=True, slots=True)
class ArtefactBuilder:
    """Builds one artefact of a model.

    Attributes:
        folder: The model's files and what they say.
        published: Values that its authors publish.
        build: Precision and storage of the artefact.
        backends: Opens graphs: for probes, calibration and the quality gate. Whoever made it closes it.
        listener: Told which step the build is at.
    """

    folder: ModelFolder
    published: tuple[PublishedVector, ...]
    build: BuildOptions
    backends: BackendCache
    listener: PreparationListener = field(default_factory=SilentListener)

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
        is_own = self.folder.onnx_file is not None
        reference = (self._reference if is_own else self._export)(graph, artefact)
        if not self.build.is_exact:
            vectors = self._probe(graph, artefact, self._options())
            check_quality(
                np.concatenate([vectors.probes, vectors.far]),
                np.concatenate([reference.probes, reference.far]),
                self.build.precision,
            )
        if self.folder.pictures is not None:
            with self._exporting(graph, self.folder.pictures.source) as on_tensor:
                export_pictures(artefact, self.folder, self.backends.open_backend, on_tensor)
        return reference.probes

    def vectors(self, artefact: Path, texts: Sequence[str]) -> FloatArray:
        """Return unit vectors of texts by an artefact's graph, [C, H], float32, in the order of their lengths.

        Raises:
            FormatError: The graph cannot be run on them.
        """
        options = self._options()
        backend = self._open(self.folder.graph(artefact), options)
        pooler = self.folder.head.pooler(artefact, self.backends.open_backend)
        tokenizer = self.folder.open_tokenizer()
        with self.listener.step(Step.CALIBRATE_VECTORS, len(texts), "text") as advance:
            return calibration_vectors(
                backend, tokenizer, pooler, texts, threads=options.parallel_runs, advance=advance
            )

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
        is_stored_otherwise = self.build.halves_weights or self.build.rounds_table
        needs_export = precision in CALIBRATED or is_stored_otherwise
        if self.folder.onnx_file is not None and needs_export:
            raise FormatError(
                f"precision {precision} and weight_storage need an architecture that the exporter "
                f"knows, not {self.folder.onnx_file} as it is"
            )

    def _export(self, graph: Path, artefact: Path) -> ProbeVectors:
        """Export the graph in the precision asked for, and the head.

        Returns:
            Vectors by the fp32 graph, which is thrown away where another is served.
        """
        precision = self.build.precision
        if self.build.is_exact:
            return self._export_reference(graph, artefact)
        arithmetic: Arithmetic = Floating()
        with tempfile.TemporaryDirectory(dir=artefact) as scratch:
            path = Path(scratch) / GRAPH_FILE
            if precision in CALIBRATED:
                reference, ranges = self._export_calibrated(path, artefact)
                kind = StaticInt8 if precision is Precision.INT8 else PerRowInt8
                arithmetic = kind(ranges)
            else:
                reference = self._export_reference(path, artefact)
            self.backends.close()
        options = ExportOptions(
            arithmetic,
            ATTENTION_OPS[precision],
            self.build.halves_weights,
            self.build.rounds_table,
        )
        with self._exporting(graph) as on_tensor:
            export_graph(
                self.folder.path, self.folder.config, graph, self._with_head(options), on_tensor
            )
        return reference

    def _export_reference(self, path: Path, artefact: Path) -> ProbeVectors:
        """Export the fp32 graph and the head, and return the vectors that others are held to."""
        options = self._with_head(ExportOptions())
        with self._exporting(path if path.parent == artefact else None) as on_tensor:
            export_graph(self.folder.path, self.folder.config, path, options, on_tensor)
        self.folder.head.write(artefact)
        return self._reference(path, artefact)

    def _export_calibrated(
        self, path: Path, artefact: Path
    ) -> tuple[ProbeVectors, dict[str, ChannelRanges]]:
        """Export the fp32 graph and the head, and run the calibration texts over the same weights.

        Returns:
            The vectors that others are held to, and the ranges by layer.
        """
        calibration = path.parent / CALIBRATION_GRAPH
        options = self._with_head(ExportOptions())
        with self._exporting() as on_tensor:
            channels = export_reference_graphs(
                self.folder.path, self.folder.config, path, calibration, options, on_tensor
            )
        self.folder.head.write(artefact)
        reference = self._reference(path, artefact)
        texts = calibration_texts(self.build.calibration)
        tokenizer = self.folder.open_tokenizer()
        threads = usable_cpus()
        cpu = BackendOptions(provider="cpu", parallel_runs=threads)
        backend = self.backends.open(calibration, Layout.PACKED, cpu)
        with self.listener.step(Step.CALIBRATE_ACTIVATIONS, len(texts), "text") as advance:
            ranges = measure_ranges(
                backend, channels, tokenizer, texts, threads=threads, advance=advance
            )
        return reference, ranges

    @contextmanager
    def _exporting(self, kept: Path | None = None, source: Path | None = None) -> Iterator[Advance]:
        """Enter the step of an export, with no graph open: both together would take the weights' memory twice.

        The graph that is kept goes to the disk from then on. `source` is the weights' folder, by default the model's.
        """
        self.backends.close()
        with Weights(source or self.folder.path) as weights:
            tensors = len(weights.names())
        with self.listener.step(Step.EXPORT, tensors, "tensor") as advance:
            yield advance
        if kept is not None:
            flush_behind(kept.parent)

    def _build_for_device(self, artefact: Path) -> FloatArray:
        """Export the first graph for a GPU whose vectors are right there.

        Raises:
            UnsuitedError: There is none in this precision.
        """
        check_suits_device(self.folder, self.build)
        precision = self.build.precision
        with tempfile.TemporaryDirectory(dir=artefact) as scratch:
            reference = Path(scratch) / GRAPH_FILE
            probes = self._export_reference(reference, artefact).probes
            graph = self.folder.graph(artefact)
            reasons = []
            for options in device_export_options(self.folder, precision, self.build.capability):
                try:
                    with self._exporting(graph) as on_tensor:
                        export_device_graph(
                            self.folder.path, self.folder.config, graph, options, on_tensor
                        )
                    self._check_on_device(graph, artefact, probes, reference)
                except (ProviderError, ModelMemoryError, BackendLostError, BackendMemoryError):
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
        check_probes(self._probe(graph, artefact, options).probes, probes, "cuda", self.build)
        length = min(self.folder.max_tokens, FAR_TOKENS)
        random = np.random.default_rng(0)
        ids = random.integers(0, self.folder.vocabulary_size, length).astype(np.int32)
        vectors, expected = (
            self._vectors_of_ids(path, artefact, path_options, ids)
            for path, path_options in ((graph, options), (reference, self._cpu_options()))
        )
        check_probes(vectors, expected, "cuda", self.build)

    def _vectors_of_ids(
        self, graph: Path, artefact: Path, options: BackendOptions, ids: IdArray
    ) -> FloatArray:
        """Return the unit vector of one input of token ids, [1, D], float32."""
        backend = self._open(graph, options)
        vectors = raw_vectors(backend, [Item(ids)], self._probe_pooler(artefact))
        return finish(vectors, dimensions=None, normalize=True)

    def _options(self) -> BackendOptions:
        """Return how to open the artefact's own graph."""
        if self.build.is_for_device:
            tokens = self.folder.max_tokens
            device = DeviceOptions(tokens, max(tokens, MIN_DEVICE_TOKENS), captured_tokens=0)
            return BackendOptions(provider="cuda", device=device)
        is_bf16 = self.build.precision is Precision.BF16
        return dataclasses.replace(self._cpu_options(), computes_bf16=is_bf16)

    def _cpu_options(self) -> BackendOptions:
        """Return how to run probes and calibration on all cores of the CPU.

        A batch a core is best, unless one text is as long as all others together: then all cores share each batch.
        """
        cpus = usable_cpus()
        if self._compares_far:
            return BackendOptions(provider="cpu", intra_op_threads=cpus, spins=True)
        return BackendOptions(provider="cpu", parallel_runs=cpus)

    def _with_head(self, options: ExportOptions) -> ExportOptions:
        """Add to a options what the model's head needs of the graph."""
        head = self.folder.head
        has_exits = head.has_exits and options.attention is not AttentionOps.PORTABLE
        return dataclasses.replace(
            options,
            head=head.graph_head(),
            takes_token_types=head.takes_token_types,
            takes_layer_count=has_exits,
        )

    def _reference(self, graph: Path, artefact: Path) -> ProbeVectors:
        """Return what the fp32 graph gives on the CPU, once it is known to give the published values."""
        return self._probe(graph, artefact, self._cpu_options(), self.published)

    def _probe(
        self,
        graph: Path,
        artefact: Path,
        options: BackendOptions,
        published: tuple[PublishedVector, ...] = (),
    ) -> ProbeVectors:
        """Return a graph's vectors of the probe texts, and of the far one where the build is held to it."""
        backend = self._open(graph, options)
        tokenizer = self.folder.open_tokenizer()
        pooler = self._probe_pooler(artefact)
        check_published(backend, tokenizer, pooler, published)
        texts = [*PROBE_TEXTS, FAR_TEXT] if self._compares_far else PROBE_TEXTS
        with self.listener.step(Step.COMPUTE_PROBES, len(texts), "text") as advance:
            vectors = run_texts(
                backend,
                tokenizer,
                pooler,
                texts,
                threads=options.parallel_runs,
                advance=advance,
            ).vectors
        return ProbeVectors(vectors[: len(PROBE_TEXTS)], vectors[len(PROBE_TEXTS) :])

    @property
    def _compares_far(self) -> bool:
        """Whether a text longer than the probes is compared: where arithmetic differs, and the window allows."""
        return (
            not self.build.is_exact
            and not self.build.is_for_device
            and self.folder.max_tokens >= MAX_TOKENS
        )

    def _probe_pooler(self, artefact: Path) -> Pooler:
        head = self.folder.head
        return pooler_of_probes(head.kinds, head.pooler(artefact, self.backends.open_backend))

    def _open(self, graph: Path, options: BackendOptions) -> Backend:
        """Open a graph and check that it is as wide as the folder says.

        Raises:
            FormatError: It is not.
        """
        backend = self.backends.open(graph, self.folder.layout, options)
        columns = self.folder.head.columns
        if backend.info.hidden_size != columns:
            self.backends.close()
            raise FormatError(
                f"{graph}: gives {backend.info.hidden_size} values, config.json says {columns}"
            )
        return backend
