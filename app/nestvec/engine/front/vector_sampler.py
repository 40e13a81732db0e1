"""A uniform sample of the dense vectors that calls are answered with, for whoever asks whether texts have moved.

Source: algorithm R (Vitter, Random Sampling with a Reservoir, 1985): after n vectors each of them is in the sample
with the same probability, and no more of them than the sample are ever held.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.tokenization import resolve_prompt
from nestvec.engine.types import EmbedCall, FloatArray, OutputKind

MAX_SAMPLE: Final = 500
# A vector shorter than this has no direction.
MIN_NORM: Final = 1e-12


class VectorReservoir:
    """A uniform sample of all vectors that were added; each is held as a unit vector in float16.

    Args:
        width: D, the number of dimensions.
        size: How many vectors are held at most.
        random: Decides which.
    """

    def __init__(self, width: int, size: int, random: np.random.Generator) -> None:
        self.seen = 0
        self._random = random
        self._held: NDArray[np.float16] = np.zeros((size, width), np.float16)

    @property
    def vectors(self) -> FloatArray:
        """The sample, `[N, D]`, float32, in no order."""
        sample: FloatArray = self._held[: self.seen].astype(np.float32)
        return sample

    def add(self, vectors: FloatArray) -> None:
        """Add vectors, `[R, D]`; only those that enter the sample are copied."""
        size = len(self._held)
        numbers = np.arange(self.seen, self.seen + len(vectors))
        # The first ones fill it; the n-th then takes one of n places at random, and enters where the sample has it.
        places = np.where(numbers < size, numbers, self._random.integers(0, numbers + 1))
        self.seen += len(vectors)
        (entering,) = np.nonzero(places < size)
        if not len(entering):
            return
        rows = vectors[entering].astype(np.float32)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        # Of several for one place numpy keeps the last, as one after another would.
        self._held[places[entering]] = rows / np.maximum(norms, MIN_NORM)


@dataclass(slots=True)
class SampledSpace:
    """What was sampled of one space since it was last taken.

    Attributes:
        model: The model's name.
        prompt_name: The prompt that stands before the texts that count; None for none.
        reservoir: The vectors.
    """

    model: str
    prompt_name: str | None
    reservoir: VectorReservoir


class VectorSampler:
    """Samples what calls are answered with, each space apart; for one event loop.

    Vectors of all layers count, past no map, not those of chunks or groups, those behind one prompt, as queries and
    passages differ by it; and none that its caller would not have kept.

    Args:
        role: The role of the texts that count: those behind the prompt which the model has for it; None: those behind
            the prompt that a call gets which names none.
        size: How many vectors of each space are held at most.
        random: Decides which.
    """

    def __init__(
        self,
        role: str | None = None,
        size: int = MAX_SAMPLE,
        random: np.random.Generator | None = None,
    ) -> None:
        self.role = role
        self.size = size
        self.spaces: dict[str, SampledSpace] = {}
        self._random = random or np.random.default_rng()

    def note(
        self, call: EmbedCall, spec: ModelSpec, prompt_name: str | None, vectors: FloatArray
    ) -> None:
        """Note what a call is answered with, where it counts.

        Args:
            call: What was asked for.
            spec: What the model is.
            prompt_name: Name of the prompt that stood before the texts, "" for a literal one, None for none.
            vectors: The pooled vectors of its texts, `[R, D]`, of all layers.
        """
        has_parts = call.chunks or call.splits or call.groups or call.context
        is_whole = vectors.shape[1] == spec.hidden_size
        if call.kind is not OutputKind.DENSE or has_parts or not is_whole or not call.uses_cache:
            return
        space = self.spaces.get(spec.space)
        if space is None:
            space = self.spaces[spec.space] = self._new(spec)
        if prompt_name == space.prompt_name:
            space.reservoir.add(vectors)

    def take(self, space: str) -> FloatArray:
        """Return the sample of a space, `[N, D]`, and begin the next one."""
        return self.spaces.pop(space).reservoir.vectors

    def _new(self, spec: ModelSpec) -> SampledSpace:
        name, _ = resolve_prompt(EmbedCall((), prompt_role=self.role), spec)
        reservoir = VectorReservoir(spec.hidden_size, self.size, self._random)
        return SampledSpace(spec.name, name, reservoir)
