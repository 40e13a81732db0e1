"""Which way a call's vectors go: how many layers run, and through which map. Pure.

A model's early layers do not speak the last one's language unless it was trained so (2D Matryoshka,
arXiv:2402.14776) or a map was fitted; anything else is refused, for vectors of raw early layers are of little use
and look like any others.
"""

from dataclasses import dataclass

from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import EmbedCall
from nestvec.engine.vectors.maps import AffineMap, MapKind, exit_space
from nestvec.engine.vectors.quantization import Quantiser
from nestvec.errors import InputError


@dataclass(frozen=True, slots=True)
class Way:
    """Where vectors come from.

    Attributes:
        exits: Layers run, as for items; none: all.
        depth: Share of the layers that run.
        map: What vectors go through behind; None for nothing.
        space: Fingerprint of what comes out.
        quantiser: Ranges of it.
    """

    exits: tuple[int, ...]
    depth: float
    map: AffineMap | None
    space: str
    quantiser: Quantiser

    @property
    def layers(self) -> int:
        """How many are run; 0 for all."""
        return self.exits[-1] if self.exits else 0


def find_way(call: EmbedCall, model: ServedModel, *, allows_untrained: bool) -> Way:
    """Read a call's `layers` and `map`.

    Args:
        call: Several layers give raw vectors of each, for those who measure.
        model: Its maps, and how many layers it has.
        allows_untrained: Whether early layers are served that nothing makes useful.

    Raises:
        InputError: Names the field, and says what there is.
    """
    is_raw = call.map_id == ""
    found = None if is_raw else _named_map(call.map_id, model)
    layers = model.core.traits.layers
    _check_layers(call, layers)
    exits = call.layers
    if found is not None and found.layers:
        if exits not in ((), (found.layers,)):
            raise InputError(
                f"map '{found.name}' takes vectors of {found.layers} layers", param="layers"
            )
        exits = (found.layers,)
    if exits == (layers,):
        exits = ()
    if exits and found is not None and not found.layers:
        raise InputError(f"map '{found.name}' takes vectors of all layers", param="layers")
    needs_map = len(exits) == 1 and found is None and exits[0] not in model.spec.trained_layers
    if needs_map and not is_raw:
        found = _fitted_exit(exits[0], model)
        if found is None and not allows_untrained:
            raise InputError(
                f"this model was not trained to stop after {exits[0]} of its {layers} layers; {_offer(model)}",
                param="layers",
            )
    depth = exits[-1] / layers if exits else 1.0
    return Way(exits, depth, found, *_space(exits, found, model))


def fitted_exits(model: ServedModel) -> dict[int, AffineMap]:
    """The map of each exit that has one."""
    return {m.layers: m for m in model.maps.values() if m.kind is MapKind.EXIT}


def _space(
    exits: tuple[int, ...], found: AffineMap | None, model: ServedModel
) -> tuple[str, Quantiser]:
    if found is not None:
        return found.space, found.quantiser
    if exits:
        return exit_space(model.spec.space, exits[-1]), Quantiser()
    return model.spec.space, model.quantiser


def _named_map(name: str | None, model: ServedModel) -> AffineMap | None:
    if name is None:
        return None
    for one in model.maps.values():
        if name in (one.name, one.space):
            return one
    known = ", ".join(sorted(model.maps)) or "none; `nestvec model fit` makes them"
    raise InputError(f"this model has no such map; it has: {known}", param="map")


def _check_layers(call: EmbedCall, layers: int) -> None:
    if not call.layers:
        return
    if not layers:
        raise InputError(
            "this model always runs all its layers (a graph of its own, bf16, or one layer only)",
            param="layers",
        )
    if any(not 1 <= one <= layers for one in call.layers):
        raise InputError(f"'layers' must be 1 to {layers} for this model", param="layers")
    if list(call.layers) != sorted(set(call.layers)):
        raise InputError("'layers' must rise", param="layers")


def _fitted_exit(layers: int, model: ServedModel) -> AffineMap | None:
    return fitted_exits(model).get(layers)


def _offer(model: ServedModel) -> str:
    """What may be asked for instead."""
    known = sorted({*model.spec.trained_layers, *fitted_exits(model)})
    if known:
        return f"it has exits after {', '.join(map(str, known))}"
    return "fit its exits with `nestvec model fit --exits`, or allow untrained ones in the settings"
