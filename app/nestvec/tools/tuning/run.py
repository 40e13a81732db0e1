"""A whole tuning run: finds the settings of one precision, then times other precisions with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from nestvec.engine.backend import BackendFactory, BackendOptions
from nestvec.errors import ModelError
from nestvec.model_store.artefacts.execution_settings import (
    ExecutionSettings,
    write_execution_settings,
)
from nestvec.model_store.artefacts.precision import Precision, cosines
from nestvec.model_store.artefacts.probes import PROBE_TEXTS, compute_vectors
from nestvec.model_store.package import Package
from nestvec.tools.tuning.report import PrecisionTiming, TuningReport
from nestvec.tools.tuning.search import SettingsSearch
from nestvec.tools.tuning.workload import Clock, cut_batches, time_batches, typical_items

COMPARE_TOKENS: Final = 6000
COMPARE_ROUNDS: Final = 3

PreparePackage = Callable[[Precision], Package]


@dataclass(frozen=True, slots=True)
class TuningRun:
    """Tunes one model on this machine.

    Attributes:
        package: The model in the precision to tune.
        prepare: Gives the model in another precision.
        open_backend: Opens graphs.
        machine: Key of the machine, under which the settings are kept.
        start: Settings to start from.
        backend_options_for: Returns how to open a package with some settings.
        cpus: Number of usable CPUs.
        limit_s: Time for the search, in seconds.
        clock: Monotonic seconds.
        is_gpu: Whether the model runs on a GPU.
    """

    package: Package
    prepare: PreparePackage
    open_backend: BackendFactory
    machine: str
    start: ExecutionSettings
    backend_options_for: Callable[[Package, ExecutionSettings], BackendOptions]
    cpus: int
    limit_s: float
    clock: Clock
    is_gpu: bool = False

    def run(self, precisions: Sequence[Precision]) -> TuningReport:
        """Search, keep the settings found, and time the precisions with them.

        Raises:
            ModelError: The model cannot be run, or the cache cannot be written.
        """
        spec = self.package.spec
        search = SettingsSearch(
            open_graph=lambda tuned, spins: self.open_backend(
                self.package.graph,
                self.package.layout,
                replace(self.backend_options_for(self.package, tuned), spins=spins),
            ),
            start=self.start,
            has_attentions=self.package.has_attentions,
            cpus=self.cpus,
            max_tokens=spec.max_tokens,
            vocabulary_size=spec.vocabulary_size,
            limit_s=self.limit_s,
            clock=self.clock,
            is_gpu=self.is_gpu,
        )
        tuned = search.run()
        file = write_execution_settings(self.package.artefact, self.machine, tuned)
        timings = [self._time(precision, tuned) for precision in precisions]
        return TuningReport(
            self.machine, self.package.build.precision, tuned, search.timings, file, timings
        )

    def _time(self, precision: Precision, tuned: ExecutionSettings) -> PrecisionTiming:
        """Return the speed and quality of a precision, or why it cannot run here."""
        try:
            package = self.prepare(precision)
            options = self.backend_options_for(package, tuned)
            backend = self.open_backend(package.graph, package.layout, options)
        except ModelError as error:
            return PrecisionTiming(precision, reason=error.message)
        try:
            spec = package.spec
            items = typical_items(COMPARE_TOKENS, spec.max_tokens, spec.vocabulary_size, seed=2)
            batches = cut_batches(items, backend, tuned.max_batch_tokens)
            seconds = min(
                time_batches(backend, batches, tuned.worker_threads, self.clock)
                for _ in range(COMPARE_ROUNDS)
            )
            tokenizer = package.open_tokenizer(package.native_max_tokens)
            vectors = compute_vectors(backend, tokenizer, package.probe_pooler, PROBE_TEXTS)
        finally:
            backend.close()
        cosine = float(cosines(vectors, package.probes).mean())
        return PrecisionTiming(precision, sum(i.tokens for i in items) / max(seconds, 1e-9), cosine)
