"""Fills an artefact's folder: the graph in the precision asked for, checked against fp32, and the probes."""

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
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import FloatArray, Item, Layout, OutputKind
from nestvec.engine.vectors.pooler import Outputs
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
from nestvec.export.architectures import STATIC_TYPE, Recipe, export_calibration_graph, export_graph
from nestvec.export.device_graph import export_device_graph
from nestvec.export.layers.arithmetic import Arithmetic, Floating, PerRowInt8, Ranges, StaticInt8
from nestvec.export.layers.attention import AttentionRoutes
from nestvec.model_store.artefacts.activation_calibration import calibration_texts, measure_ranges
from nestvec.model_store.artefacts.device_build import check_suits_device, device_recipes
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
from nestvec.model_store.folder.derive import GRAPH, Derived
from nestvec.model_store.heads.base import HEAD_FILE
from nestvec.model_store.sources.card import Published

log = logging.getLogger(__name__)

FAR_TOKENS: Final = 1152  # beyond the windows of the families that have short ones
LEAST_DEVICE_TOKENS: Final = 1024  # of a batch: probes are about as many
REFERENCE: Final = BackendOptions(provider="cpu")
ROUTES: Final[Mapping[Precision, AttentionRoutes]] = {
    Precision.FP32: AttentionRoutes.BY_LENGTH,
    Precision.INT8: AttentionRoutes.ALIKE,
    Precision.INT8_ACCURATE: AttentionRoutes.ALIKE,
    Precision.BF16: AttentionRoutes.PORTABLE,  # the contrib kernels are ONNX Runtime's own
}


def probed(kinds: Sequence[OutputKind], outputs: Outputs) -> Outputs:
    """What probes are compared by: vectors as they are served, else the mean of whatever the graph gives."""
    return outputs if OutputKind.DENSE in kinds else Outputs("mean")


@dataclass(frozen=True, slots=True)
class Builder:
    """Makes one artefact.

    Attributes:
        derived: The model's folder, understood.
        published: What its authors publish.
        wanted: Precision and storage.
        open_backend: Opens graphs: for probes, calibration and the gate.
    """

    derived: Derived
    published: tuple[Published, ...]
    wanted: BuildOptions
    open_backend: BackendFactory

    def fill(self, folder: Path) -> FloatArray:
        """Write the graph into a folder, unless the model's own is served.

        Returns:
            Vectors of the probe texts by the fp32 graph on the CPU, (P, D), float32: the truth for every precision.

        Raises:
            FormatError: The model cannot be exported like that.
            ProbeError: Its vectors are not those that its authors publish.
            QualityError: The precision is too coarse for this model.
        """
        graph = self.derived.graph(folder)
        if self.wanted.is_for_device:
            return self._fill_for_device(folder)
        if self.wanted.precision is Precision.FP16:
            raise FormatError("precision fp16 is for GPUs; on CPU use fp32, bf16 or int8")
        if self.derived.architecture == STATIC_TYPE and self.wanted.precision is not Precision.FP32:
            raise FormatError(f"precision {self.wanted.precision}: a static model has no products")
        if self.derived.onnx_file is not None:
            if self.wanted.precision in CALIBRATED or self.wanted.halves_weights:
                raise FormatError(
                    f"precision {self.wanted.precision} and weight_storage need an architecture that the exporter "
                    f"knows, not {self.derived.onnx_file} as it is"
                )
            probes = self._probes(graph, folder, REFERENCE, self.published)
        else:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                reference = graph if self.wanted.is_exact else Path(scratch) / GRAPH
                export_graph(
                    self.derived.folder, self.derived.config, reference, self._ended(Recipe())
                )
                self.derived.head.write(folder)
                probes = self._probes(reference, folder, REFERENCE, self.published)
            if not self.wanted.is_exact:
                export_graph(self.derived.folder, self.derived.config, graph, self._recipe(folder))
        if not self.wanted.is_exact:
            found = self._probes(graph, folder, self._own_options())
            check_quality(found, probes, self.wanted.precision)
        return probes

    def _fill_for_device(self, folder: Path) -> FloatArray:
        """Write the first graph for a GPU whose vectors are right there.

        Raises:
            UnsuitedError: There is none in this precision.
        """
        check_suits_device(self.derived, self.wanted)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            reference = Path(scratch) / GRAPH
            export_graph(self.derived.folder, self.derived.config, reference, self._ended(Recipe()))
            self.derived.head.write(folder)
            probes = self._probes(reference, folder, REFERENCE, self.published)
            graph = self.derived.graph(folder)
            reasons = []
            for recipe in device_recipes(self.derived, self.wanted.precision):
                try:
                    export_device_graph(self.derived.folder, self.derived.config, graph, recipe)
                    self._check_on_device(graph, folder, probes, reference)
                except (ProviderError, ModelMemoryError, BackendLostError):
                    raise  # the machine's fault, not the graph's
                except (ModelError, BackendError) as error:
                    reasons.append(f"{recipe.route} attention: {error.message}")
                    for file in graph.parent.glob("*.onnx"):
                        if file.name != HEAD_FILE:
                            file.unlink()
                    continue
                log.info("%s on a GPU: %s attention", self.wanted.precision, recipe.route)
                return probes
        raise UnsuitedError(
            f"no graph in {self.wanted.precision} is right on this GPU: {'; '.join(reasons)}"
        )

    def _check_on_device(
        self, graph: Path, folder: Path, probes: FloatArray, reference: Path
    ) -> None:
        """Probes, and an input that is longer than most windows, against the fp32 graph on the CPU.

        Raises:
            ProbeError: They differ in fp32.
            QualityError: They differ by more than the precision may.
            BackendError: A run failed.
        """
        options = self._own_options()
        found = self._probes(graph, folder, options)
        check_probes(found, probes, "cuda", self.wanted)
        length = min(self.derived.max_tokens, FAR_TOKENS)
        random = np.random.default_rng(0)
        ids = random.integers(0, self.derived.vocabulary_size, length).astype(np.int32)
        both = []
        for path, how in ((graph, options), (reference, REFERENCE)):
            backend = self._open(path, how)
            try:
                outputs = probed(
                    self.derived.head.kinds, self.derived.head.outputs(folder, self.open_backend)
                )
                both.append(raw_vectors(backend, [Item(ids)], outputs))
            finally:
                backend.close()
        unit = [finish(one, dimensions=None, normalize=True) for one in both]
        check_probes(unit[0], unit[1], "cuda", self.wanted)

    def vectors(self, artefact: Path, texts: Sequence[str]) -> FloatArray:
        """Unit vectors of texts by an artefact's graph, (C, H), float32, in no order.

        Raises:
            FormatError: The graph cannot be run on them.
        """
        backend = self._open(self.derived.graph(artefact), self._own_options())
        try:
            outputs = self.derived.head.outputs(artefact, self.open_backend)
            return calibration_vectors(backend, self._tokenizer(), outputs, texts)
        finally:
            backend.close()

    def _own_options(self) -> BackendOptions:
        if self.wanted.is_for_device:
            most = self.derived.max_tokens
            device = DeviceOptions(most, max(most, LEAST_DEVICE_TOKENS), captured_tokens=0)
            return BackendOptions(provider="cuda", device=device)
        is_bf16 = self.wanted.precision is Precision.BF16
        return BackendOptions(provider="cpu", computes_bf16=is_bf16)

    def _recipe(self, folder: Path) -> Recipe:
        arithmetic: Arithmetic = Floating()
        if self.wanted.precision in CALIBRATED:
            log.info("calibrating for %s", self.wanted.precision)
            kind = StaticInt8 if self.wanted.precision is Precision.INT8 else PerRowInt8
            arithmetic = kind(self._ranges(folder))
        routes = ROUTES[self.wanted.precision]
        return self._ended(Recipe(arithmetic, routes, self.wanted.halves_weights))

    def _ended(self, recipe: Recipe) -> Recipe:
        """With what the model's head asks of the graph."""
        head = self.derived.head
        has_exits = OutputKind.DENSE in head.kinds and recipe.routes is not AttentionRoutes.PORTABLE
        return dataclasses.replace(
            recipe, tail=head.tail(), asks_types=head.asks_types, asks_layers=has_exits
        )

    def _ranges(self, folder: Path) -> dict[str, Ranges]:
        texts = calibration_texts(self.wanted.calibration)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            path = Path(scratch) / GRAPH
            channels = export_calibration_graph(self.derived.folder, self.derived.config, path)
            backend = self.open_backend(path, Layout.PACKED, REFERENCE)
            try:
                return measure_ranges(backend, channels, self._tokenizer(), texts)
            finally:
                backend.close()

    def _probes(
        self,
        graph: Path,
        folder: Path,
        options: BackendOptions,
        published: tuple[Published, ...] = (),
    ) -> FloatArray:
        """Vectors of the probe texts, once the graph is known to give the published ones."""
        backend = self._open(graph, options)
        try:
            head = self.derived.head
            tokenizer = self._tokenizer()
            outputs = probed(head.kinds, head.outputs(folder, self.open_backend))
            check_published(backend, tokenizer, outputs, published)
            return compute_vectors(backend, tokenizer, outputs, PROBE_TEXTS)
        finally:
            backend.close()

    def _open(self, graph: Path, options: BackendOptions) -> Backend:
        backend = self.open_backend(graph, self.derived.layout, options)
        columns = self.derived.head.columns
        if backend.hidden_size != columns:
            backend.close()
            raise FormatError(
                f"{graph}: gives {backend.hidden_size} values, config.json says {columns}"
            )
        return backend

    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(
            self.derived.folder / "tokenizer.json",
            max_tokens=self.derived.max_tokens,
            vocabulary_size=self.derived.vocabulary_size,
            adds_special=self.derived.adds_special_tokens,
            drops_unknown=self.derived.drops_unknown,
        )
