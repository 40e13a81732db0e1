"""The way to a call's vectors: how many layers run, through which map, into which space. Pure.

A model's early layers do not speak the last one's language unless it was trained so (2D Matryoshka,
arXiv:2402.14776) or a map was fitted; anything else is refused, for vectors of raw early layers are of little use
and look like any others.
"""

from dataclasses import dataclass, replace
from functools import partial

from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.observer import Observer, VectorsGiven
from nestvec.engine.outputs.adapters import ADAPTERS
from nestvec.engine.outputs.base import Finished
from nestvec.engine.outputs.joint import kinds_of
from nestvec.engine.outputs.tokens import are_queries
from nestvec.engine.results import RawVectors
from nestvec.engine.splitting import Check
from nestvec.engine.types import EmbedCall, Layout, OutputKind
from nestvec.engine.vectors.groups import Groups
from nestvec.engine.vectors.maps import AffineMap, MapKind, exit_space
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.engine.vectors.token_vectors import TokenPooling
from nestvec.errors import InputError


@dataclass(frozen=True, slots=True)
class VectorPlan:
    """Where a call's vectors come from.

    Attributes:
        exits: Numbers of layers after each of which a vector is taken, rising; empty: after the last layer.
        layer_share: Share of the layers that run, 0 … 1.
        map: The map that vectors go through; None for none.
        space: Fingerprint of the vectors' space.
        quantizer: Ranges for 8-bit vectors of that space.
        token_pooling: How like vectors of tokens are merged; None where they are not.
    """

    exits: tuple[int, ...]
    layer_share: float
    map: AffineMap | None
    space: str
    quantizer: Quantizer
    token_pooling: TokenPooling | None = None

    @property
    def pool_factor(self) -> float:
        """How many vectors of tokens become one."""
        return 1 if self.token_pooling is None else self.token_pooling.factor

    @property
    def layers(self) -> int:
        """Number of layers that run; 0 for all."""
        return self.exits[-1] if self.exits else 0


def resolve_plan(call: EmbedCall, model: ServedModel, *, allows_untrained: bool) -> VectorPlan:
    """Resolve a call's `layers` and `map` against what the model has.

    Args:
        call: The call; several layers give raw vectors of each, for those who measure.
        model: The model, with its maps.
        allows_untrained: Whether early layers are served that nothing makes useful.

    Raises:
        InputError: The model has no such exit or map; names the field, and says what there is.
    """
    wants_raw = call.map_id == ""
    vector_map = None if wants_raw else find_map(call.map_id, model)
    layers = model.core.backend_info.layers
    if call.layers and not layers:
        raise InputError(
            f"this model always runs all its layers: {why_no_exits(model)}", param="layers"
        )
    _check_layers(call, layers)
    exits = call.layers
    if vector_map is not None and vector_map.layers:
        if exits not in ((), (vector_map.layers,)):
            raise InputError(
                f"map '{vector_map.name}' takes vectors of {vector_map.layers} layers",
                param="layers",
            )
        exits = (vector_map.layers,)
    if exits == (layers,):
        exits = ()
    if exits and vector_map is not None and not vector_map.layers:
        raise InputError(f"map '{vector_map.name}' takes vectors of all layers", param="layers")
    is_untrained = len(exits) == 1 and exits[0] not in model.spec.trained_layers
    if is_untrained and vector_map is None and not wants_raw:
        vector_map = fitted_exits(model).get(exits[0])
        if vector_map is None and not allows_untrained:
            raise InputError(
                f"this model was not trained to stop after {exits[0]} of its {layers} layers; {_offer(model)}",
                param="layers",
            )
    layer_share = exits[-1] / layers if exits else 1.0
    space, quantizer = _space(exits, vector_map, model)
    if call.kind is OutputKind.SPARSE and model.lexical is not None:
        space = model.lexical.table.space
    pooling = _token_pooling(call, model.spec)
    return VectorPlan(exits, layer_share, vector_map, space, quantizer, pooling)


def finish_vectors(
    raw: RawVectors, call: EmbedCall, model: ServedModel, plan: VectorPlan, check: Check
) -> Finished:
    """Make the rows that a call is answered with: combine, map, cut, scale and convert what the core gave.

    Args:
        raw: Rows of the call's inputs, as pooled.
        call: The call.
        model: Its model.
        plan: Where its vectors come from.
        check: Called between steps of long work; what it raises ends it.

    Raises:
        InputError: The vectors of a group cancel each other out.
    """
    normalize = model.spec.is_normalized if call.normalize is None else call.normalize
    if call.groups:
        combined = Groups(call.groups, call.weights).combine(raw.vectors)
        raw = replace(raw, vectors=combined, rows=(1,) * len(combined))
    if plan.map is not None:
        raw = replace(raw, vectors=plan.map.apply(raw.vectors))
    finish = partial(ADAPTERS[call.kind].finish, normalize=normalize, check=check)
    return finish(raw, call, plan.quantizer, token_pooling=plan.token_pooling)


def why_no_exits(model: ServedModel) -> str:
    """Say why a model has no early exits: the one reason that holds."""
    spec = model.spec
    if spec.architecture == "recipe":
        return "it is a recipe, whose parts have layers of their own"
    if OutputKind.DENSE not in spec.kinds:
        return "only vectors of whole texts have exits"
    if model.core.backend_info.layout is Layout.PADDED:
        return "it is served from a graph of its own, which others made without exits"
    if spec.precision == "bf16":
        return "it runs in bf16, whose graphs have no exits; with precision fp32 or int8 they have"
    if spec.architecture == "static":
        return "a static model has none"
    return "it has one only"


def fitted_exits(model: ServedModel) -> dict[int, AffineMap]:
    """The map of each early exit that has one, by its number of layers."""
    return {
        vector_map.layers: vector_map
        for vector_map in model.maps.values()
        if vector_map.kind is MapKind.EXIT
    }


def _space(
    exits: tuple[int, ...], vector_map: AffineMap | None, model: ServedModel
) -> tuple[str, Quantizer]:
    """The space that vectors end in, and its ranges."""
    if vector_map is not None:
        return vector_map.space, vector_map.quantizer
    if exits:
        return exit_space(model.spec.space, exits[-1]), Quantizer()
    return model.spec.space, model.quantizer


def find_map(name: str | None, model: ServedModel) -> AffineMap | None:
    """Return the map of a model that a name or a fingerprint means; None for no name.

    Raises:
        InputError: The model has no such map; says which it has.
    """
    if name is None:
        return None
    for vector_map in model.maps.values():
        if name in (vector_map.name, vector_map.space):
            return vector_map
    known = ", ".join(sorted(model.maps)) or "none; `nestvec model fit` makes them"
    raise InputError(f"this model has no such map; it has: {known}", param="map")


def _check_layers(call: EmbedCall, layers: int) -> None:
    """Refuse layers that the model does not have, or in another order.

    Raises:
        InputError: Names the field.
    """
    if any(not 1 <= layer <= layers for layer in call.layers):
        raise InputError(f"'layers' must be 1 to {layers} for this model", param="layers")
    if list(call.layers) != sorted(set(call.layers)):
        raise InputError("'layers' must rise", param="layers")


def _offer(model: ServedModel) -> str:
    """What may be asked for instead, in words."""
    known = sorted({*model.spec.trained_layers, *fitted_exits(model)})
    if known:
        return f"it has exits after {', '.join(map(str, known))}"
    return "fit its exits with `nestvec model fit --exits`, or allow untrained ones in the settings"


def note_vectors(
    observer: Observer,
    call: EmbedCall,
    spec: ModelSpec,
    plan: VectorPlan,
    rows: int,
    prompt_name: str | None,
) -> None:
    """Tell an observer what kind of dense vectors a call is answered with; of other outputs it is told nothing.

    Args:
        observer: Is told.
        call: What was asked for.
        spec: What the model is.
        plan: Where the vectors come from.
        rows: How many there are.
        prompt_name: Name of the prompt that stood before the texts, "" for a literal one, None for none.
    """
    if call.kind is not OutputKind.DENSE:
        return
    dimensions = call.dimensions or spec.hidden_size
    observer.vectors_given(
        spec.name,
        VectorsGiven(
            rows=rows,
            dimensions=dimensions if dimensions in spec.trained_dimensions else 0,
            dtypes=tuple(map(str, call.output_dtypes)) or ("float32",),
            has_all_layers=not plan.exits,
            is_mapped=plan.map is not None,
            prompt="literal" if prompt_name == "" else prompt_name or "",
        ),
    )


def _token_pooling(call: EmbedCall, spec: ModelSpec) -> TokenPooling | None:
    """Return how a call's token vectors are merged: as it says, else as the model does; None for not."""
    own = spec.token_pooling
    if OutputKind.TOKENS not in kinds_of(call.kind):
        return None
    if call.pool_factor is not None:
        return replace(own or TokenPooling(), factor=call.pool_factor)
    if own is None:
        return None
    return own if (own.pools_queries if are_queries(call, spec) else own.pools_documents) else None
