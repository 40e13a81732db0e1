"""A whole tuning run: the settings of one precision, then the other precisions at those settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from nestvec.engine.backend import BackendFactory, BackendOptions
from nestvec.errors import ModelError
from nestvec.model_store.artefacts.execution_settings import Tuned, write_tuned
from nestvec.model_store.artefacts.precision import Precision, cosines
from nestvec.model_store.artefacts.probes import PROBE_TEXTS, compute_vectors
from nestvec.model_store.package import Package
from nestvec.tools.tuning.report import PrecisionTiming, TuningReport
from nestvec.tools.tuning.search import Search
from nestvec.tools.tuning.workload import Clock, cut, seconds_for, typical_items

COMPARE_TOKENS: Final = 6000
COMPARE_ROUNDS: Final = 3

Prepare = Callable[[Precision], Package]


@dataclass(frozen=True, slots=True)
class TuningRun:
    """What a run needs.

    Attributes:
        package: The model in the precision to tune.
        prepare: Gives it in another precision.
        machine: Key of what is found.
        start: Choices to start from.
        options_of: How to open a package with such choices.
        is_gpu: Whether that is on one.
        limit_s: Time for the search.
    """

    package: Package
    prepare: Prepare
    open_backend: BackendFactory
    machine: str
    start: Tuned
    options_of: Callable[[Package, Tuned], BackendOptions]
    cpus: int
    limit_s: float
    clock: Clock
    is_gpu: bool = False

    def run(self, precisions: Sequence[Precision]) -> TuningReport:
        """Search, keep what was found, and time the precisions with it.

        Raises:
            ModelError: The model cannot be run, or the cache not be written.
        """
        spec = self.package.spec
        search = Search(
            open_graph=lambda tuned, spins: self.open_backend(
                self.package.graph,
                self.package.layout,
                replace(self.options_of(self.package, tuned), spins=spins),
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
        file = write_tuned(self.package.artefact, self.machine, tuned)
        timings = [self._time(precision, tuned) for precision in precisions]
        return TuningReport(
            self.machine, self.package.build.precision, tuned, search.timings, file, timings
        )

    def _time(self, precision: Precision, tuned: Tuned) -> PrecisionTiming:
        """Speed and quality of a precision, or why it cannot run here."""
        try:
            package = self.prepare(precision)
            options = self.options_of(package, tuned)
            backend = self.open_backend(package.graph, package.layout, options)
        except ModelError as error:
            return PrecisionTiming(precision, reason=error.message)
        try:
            spec = package.spec
            items = typical_items(COMPARE_TOKENS, spec.max_tokens, spec.vocabulary_size, seed=2)
            batches = cut(items, backend, tuned.max_batch_tokens)
            seconds = min(
                seconds_for(backend, batches, tuned.worker_threads, self.clock)
                for _ in range(COMPARE_ROUNDS)
            )
            tokenizer = package.open_tokenizer(package.native_max_tokens)
            found = compute_vectors(backend, tokenizer, package.probe_outputs, PROBE_TEXTS)
        finally:
            backend.close()
        cosine = float(cosines(found, package.probes).mean())
        return PrecisionTiming(precision, sum(i.tokens for i in items) / max(seconds, 1e-9), cosine)
