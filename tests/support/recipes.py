"""A service of two fake models and recipes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from nestvec.engine.backend import BackendInfo
from nestvec.engine.cache.vector_cache import VectorCache
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.models.model_pool import ModelPool
from nestvec.engine.models.model_registry import ModelRegistry
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.pictures.preprocessing import PictureTower
from nestvec.engine.recipes.opening import open_recipe
from nestvec.engine.recipes.recipe import Combination, Recipe, RecipePart
from nestvec.engine.recipes.recipe_slot import RecipeSlot
from nestvec.engine.service import EmbeddingService
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Batch, Layout, RawOutput
from nestvec.engine.vectors.quantization import Quantizer
from typing_extensions import override

from tests.support.fakes import FakeBackend, RecordingObserver, fake_core
from tests.support.served import SPEC

NARROW = 4


@dataclass
class OtherBackend(FakeBackend):
    """Gives the last columns of FakeBackend's states, turned about: another model with narrower vectors.

    Attributes:
        fails_on: A token id with which a run fails; None for none.
    """

    info: BackendInfo = field(
        default_factory=lambda: BackendInfo(Layout.PACKED, "cpu", NARROW, gives_tokens=True)
    )
    fails_on: int | None = None

    @override
    def run(self, batch: Batch) -> RawOutput:
        """Run a batch."""
        if self.fails_on in batch.arrays["ids"]:
            raise RuntimeError("secret text of a caller")
        hidden = super().run(batch).hidden
        assert hidden is not None
        return RawOutput(hidden=np.ascontiguousarray(hidden[:, : -NARROW - 1 : -1]))


@dataclass
class ServedRecipes:
    """A service and the parts a test looks into.

    Attributes:
        service: The service.
        one: The backend of the model "one", 8 dimensions.
        two: The backend of the model "two", 4 dimensions.
        observer: Told of the calls of both.
        slots: The recipes, by name.
    """

    service: EmbeddingService
    one: FakeBackend
    two: OtherBackend
    observer: RecordingObserver
    slots: dict[str, RecipeSlot] = field(default_factory=dict)

    def close(self) -> None:
        """Let what is held run, and close the service."""
        self.one.gate.set()
        self.two.gate.set()
        self.service.close()


def serve_recipes(
    tokenizer_path: Path,
    *recipes: Recipe,
    limits: ServiceLimits | None = None,
    cache: VectorCache | None = None,
    max_tokens: int = 64,
    calibration: Sequence[int] = (),
    shares_space: bool = False,
    towers: Mapping[str, PictureTower] | None = None,
) -> ServedRecipes:
    """Put a service together; close it.

    Args:
        tokenizer_path: The tokenizer's file, of both models.
        recipes: What is served beside the models "one" and "two".
        limits: Bounds on a call.
        cache: Keeps vectors.
        max_tokens: Most tokens of an input, of both models.
        calibration: How many calibration vectors each model has; empty for none.
        shares_space: Whether the two models say that their vectors are in one space.
        towers: How those models take pictures that do, by name.
    """
    one, two, observer = FakeBackend(), OtherBackend(), RecordingObserver()
    models = ModelRegistry()
    widths = {"one": one.info.hidden_size, "two": two.info.hidden_size}
    for number, (name, backend) in enumerate({"one": one, "two": two}.items()):
        spec = replace(
            SPEC,
            name=name,
            hidden_size=widths[name],
            trained_dimensions=(widths[name],),
            max_tokens=max_tokens,
            space=SPEC.space if shares_space else f"space of {name}",
            pictures=(towers or {}).get(name),
        )
        tokenizer = Tokenizer(
            tokenizer_path, max_tokens=max_tokens, vocabulary_size=spec.vocabulary_size
        )
        quantizer = Quantizer()
        if calibration:
            vectors = np.random.default_rng(number).standard_normal(
                (calibration[number], widths[name])
            )
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            quantizer = Quantizer(vectors.astype(np.float32), "bundled")
        core = fake_core(backend, observer)
        models.add(ServedModel(spec, tokenizer, core, quantizer=quantizer))
    pool = ModelPool(models)
    slots = {}
    for recipe in recipes:
        parts = tuple(models.find(part.model) for part in recipe.parts)
        slot = RecipeSlot(
            names=(recipe.name,), given_names=(recipe.name,), parts=parts, recipe=recipe
        )
        slot.open = partial(open_recipe, slot, allows_untrained=True)
        models.add(slot)
        slots[recipe.name] = slot
    service = EmbeddingService(
        models,
        pool=pool,
        limits=limits or ServiceLimits(),
        observer=observer,
        threads=2,
        cache=cache,
    )
    return ServedRecipes(service, one, two, observer, slots)


def concat(*parts: RecipePart, name: str = "both") -> Recipe:
    """Return a recipe that joins parts."""
    return Recipe(name, Combination.CONCAT, parts)
