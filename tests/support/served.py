"""A served model over a fake backend and the tiny tokenizer, for tests of service and HTTP."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nestvec.engine.cache.vector_cache import VectorCache
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.models.model_registry import ModelRegistry
from nestvec.engine.models.served_model import AliasPreset, ServedModel
from nestvec.engine.observer import Observer
from nestvec.engine.outputs.lexical import LexicalOutput
from nestvec.engine.service import EmbeddingService
from nestvec.engine.text.preparation.text_form import PLAIN_TEXTS, TextForm
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.text.tokenizer_changes import TokenizerChanges
from nestvec.engine.vectors.maps import AffineMap

from tests.support.fakes import HIDDEN, FakeBackend, RecordingObserver, fake_core
from tests.support.tiny import CONFIG

SPEC = ModelSpec(
    name="org/fake-model",
    hidden_size=HIDDEN,
    max_tokens=16,
    vocabulary_size=CONFIG["vocab_size"],
    pooling="mean",
    is_normalized=True,
    prompts={"query": "query : ", "document": "passage : "},
    default_prompt=None,
    pools_prompt=True,
    trained_dimensions=(8, 4),
    space="0123456789abcdef",
    created_s=1_700_000_000,
    source="test",
    license="MIT",
    architecture="bert",
)


def _parts(parts: tuple[ModelSpec, Tokenizer]) -> dict[str, Any]:
    return {"spec": parts[0], "tokenizer": parts[1]}


@dataclass
class Served:
    """A service and the parts a test looks into."""

    service: EmbeddingService
    backend: FakeBackend
    observer: RecordingObserver
    tokenizer: Tokenizer


@dataclass
class ServedOptions:
    """What a test may change about the served model."""

    spec: ModelSpec = SPEC
    limits: ServiceLimits = field(default_factory=ServiceLimits)
    aliases: tuple[str, ...] = ("text-embedding-3-small",)
    max_queue_tokens: int = 10_000
    accepts_any: bool = False
    presets: dict[str, AliasPreset] = field(default_factory=dict)
    maps: tuple[AffineMap, ...] = ()
    cache: VectorCache | None = None
    text: TextForm = PLAIN_TEXTS
    lexical: LexicalOutput | None = None


def serve_fake(
    tokenizer_path: Path, options: ServedOptions | None = None, *, also_tell: Observer | None = None
) -> Served:
    """Put a service together; close it with `served.service.close()`.

    Args:
        tokenizer_path: The tokenizer's file.
        options: What the test changes.
        also_tell: Another observer that hears what the service's own hears.
    """
    options = options or ServedOptions()
    backend, observer = FakeBackend(), RecordingObserver(also=also_tell)
    core = fake_core(backend, observer, max_queue_tokens=options.max_queue_tokens)
    own = options.spec

    def in_form(form: TextForm) -> tuple[ModelSpec, Tokenizer]:
        spec = dataclasses.replace(own, space=form.space_of(own.space))
        size = spec.vocabulary_size
        return spec, Tokenizer(
            tokenizer_path,
            max_tokens=spec.max_tokens,
            vocabulary_size=size,
            changes=TokenizerChanges(form=form),
        )

    spec, tokenizer = in_form(options.text)
    models = ModelRegistry(accepts_any=options.accepts_any)
    maps = {vector_map.name: vector_map for vector_map in options.maps}
    model = ServedModel(spec, tokenizer, core, options.aliases, options.presets, maps=maps)
    model = dataclasses.replace(model, lexical=options.lexical)
    forms = {preset.text for preset in options.presets.values() if preset.text is not None}
    others = {form: dataclasses.replace(model, **_parts(in_form(form))) for form in forms}
    models.add(dataclasses.replace(model, variants=others)).text = options.text
    service = EmbeddingService(
        models, limits=options.limits, observer=observer, threads=2, cache=options.cache
    )
    return Served(service, backend, observer, tokenizer)
