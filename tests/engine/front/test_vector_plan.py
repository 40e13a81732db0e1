"""Early exits and maps: which are to be had, what they give, and what is refused."""

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.types import EmbedCall, FloatArray, Layout, OutputKind
from nestvec.engine.vectors.maps import AffineMap, MapKind, exit_space
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import InputError

from tests.engine.test_service import ids_of
from tests.support.fakes import HIDDEN, exit_states, fake_states
from tests.support.served import SPEC, Served, ServedOptions, serve_fake

# Layers of the fake backend.
LAYERS = 3


def random_map(name: str, *, layers: int = 0, width: int = HIDDEN, unit: bool = False) -> AffineMap:
    """Make a map of the fake model, with the length of its name as the seed."""
    random = np.random.default_rng(len(name))
    weight = random.standard_normal((HIDDEN, width)).astype(np.float32)
    bias = random.standard_normal(width).astype(np.float32)
    kind = MapKind.EXIT if layers else MapKind.SVD
    return AffineMap(name, kind, weight, bias, SPEC.space, layers=layers, takes_unit=unit)


def pooled_exit(served: Served, text: str, layer: int) -> FloatArray:
    """Return what the fake model gives after a layer, pooled."""
    states = exit_states(fake_states(ids_of(served, text)).astype(np.float32), layer, LAYERS)
    return np.asarray(states.mean(axis=0), np.float32)


def unit(vectors: FloatArray) -> FloatArray:
    """Scale vectors to unit length."""
    return finish(np.atleast_2d(vectors), dimensions=None, normalize=True)


@pytest.fixture
def options() -> ServedOptions:
    """A model trained to stop after its first layer, with a fitted exit after the second and a map."""
    maps = (random_map("exit-2", layers=2), random_map("turned"), random_map("short", width=4))
    return ServedOptions(spec=dataclasses.replace(SPEC, trained_layers=(1,)), maps=maps)


async def test_a_trained_exit_is_served_as_it_is(tiny_folder: Path, options: ServedOptions) -> None:
    """A trained exit has a space of its own; asking for all layers is asking for the model itself."""
    served = serve_fake(tiny_folder / "tokenizer.json", options)
    early = await served.service.embed(EmbedCall(["alpha beta"], layers=(1,)))
    whole = await served.service.embed(EmbedCall(["alpha beta"], layers=(LAYERS,)))
    served.service.close()
    np.testing.assert_allclose(early.vectors, unit(pooled_exit(served, "alpha beta", 1)), atol=1e-6)
    assert (early.layers, early.map_name, early.space) == (1, "", exit_space(SPEC.space, 1))
    np.testing.assert_allclose(whole.vectors, unit(pooled_exit(served, "alpha beta", 3)), atol=1e-6)
    assert (whole.layers, whole.space) == (0, SPEC.space)
    assert served.backend.exits == [(1,), ()]


async def test_a_fitted_exit_goes_through_its_map(
    tiny_folder: Path, options: ServedOptions
) -> None:
    """A fitted exit is named by its layers or by its map, and the answer says which map made it."""
    served = serve_fake(tiny_folder / "tokenizer.json", options)
    by_layers = await served.service.embed(EmbedCall(["alpha"], layers=(2,), dimensions=5))
    by_map = await served.service.embed(EmbedCall(["alpha"], map_id="exit-2", dimensions=5))
    served.service.close()
    exit_map = options.maps[0]
    mapped = pooled_exit(served, "alpha", 2) @ exit_map.weight + exit_map.bias
    np.testing.assert_allclose(by_layers.vectors, unit(mapped[:5]), atol=1e-5)
    np.testing.assert_array_equal(by_map.vectors, by_layers.vectors)
    assert (by_map.layers, by_map.map_name, by_map.space) == (2, "exit-2", exit_map.space)


async def test_maps_by_name_and_by_fingerprint(tiny_folder: Path, options: ServedOptions) -> None:
    """A map is found by name or fingerprint, and dimensions are chosen from its width."""
    served = serve_fake(tiny_folder / "tokenizer.json", options)
    short = options.maps[2]
    result = await served.service.embed(EmbedCall(["alpha"], map_id=short.space))
    assert (result.vectors.shape, result.space) == ((1, 4), short.space)
    with pytest.raises(InputError, match="1 to 4"):
        await served.service.embed(EmbedCall(["alpha"], map_id="short", dimensions=5))
    served.service.close()


async def test_several_exits_of_one_run(tiny_folder: Path, options: ServedOptions) -> None:
    """Several exits give raw vectors of each from one batch, whatever is trained, for those who measure."""
    served = serve_fake(tiny_folder / "tokenizer.json", options)
    texts = ["alpha", "beta gamma"]
    result = await served.service.embed(EmbedCall(texts, layers=(1, 2, 3), normalize=False))
    served.service.close()
    expected = [pooled_exit(served, text, layer) for text in texts for layer in (1, 2, 3)]
    np.testing.assert_allclose(result.vectors, expected, atol=1e-6)
    assert result.rows == (3, 3)
    assert served.backend.exits == [(1, 2, 3)]


async def test_exits_that_one_run_cannot_give_run_one_by_one(
    tiny_folder: Path, options: ServedOptions
) -> None:
    """A backend that gives one exit a run runs once for each exit, with the same vectors."""
    served = serve_fake(tiny_folder / "tokenizer.json", options)
    served.backend.info = replace(served.backend.info, gives_exits=False)
    result = await served.service.embed(EmbedCall(["alpha"], layers=(1, 3), normalize=False))
    served.service.close()
    expected = [pooled_exit(served, "alpha", layer) for layer in (1, 3)]
    np.testing.assert_allclose(result.vectors, expected, atol=1e-6)
    assert served.backend.exits == [(1,), (3,)]


@pytest.mark.parametrize(
    ("info", "spec", "reason"),
    [
        ({"layout": Layout.PADDED}, {}, "a graph of its own"),
        ({}, {"precision": "bf16"}, "bf16"),
        ({}, {"architecture": "static"}, "a static model has none"),
        ({}, {"kinds": (OutputKind.DENSE,)}, "it has one only"),
    ],
)
async def test_a_model_without_exits_says_the_reason_that_holds(
    tiny_folder: Path, info: dict[str, Any], spec: dict[str, Any], reason: str
) -> None:
    """Of several reasons that there may be, only the model's own is told."""
    options = ServedOptions(spec=replace(SPEC, **spec))
    served = serve_fake(tiny_folder / "tokenizer.json", options)
    served.backend.info = replace(served.backend.info, layers=0, **info)
    with pytest.raises(InputError) as caught:
        await served.service.embed(EmbedCall(["alpha"], layers=(1,)))
    served.service.close()
    others = {"a graph of its own", "bf16", "a static model has none", "it has one only"} - {reason}
    assert reason in caught.value.message
    assert not [other for other in others if other in caught.value.message]


@pytest.mark.parametrize(
    ("call", "param", "message"),
    [
        ({"layers": (4,)}, "layers", "1 to 3"),
        ({"layers": (0,)}, "layers", "1 to 3"),
        ({"map_id": "nope"}, "map", "it has: exit-2, short, turned"),
        ({"map_id": "exit-2", "layers": (1,)}, "layers", "2 layers"),
        ({"map_id": "turned", "layers": (1,)}, "layers", "all layers"),
        ({"layers": (2, 1)}, "layers", "rise"),
        ({"layers": (1,), "kind": OutputKind.TOKENS}, "layers", "vectors of texts"),
        ({"map_id": "turned", "kind": OutputKind.TOKENS}, "map", "vectors of texts"),
    ],
    ids=str,
)
async def test_what_is_not_to_be_had(
    tiny_folder: Path, options: ServedOptions, call: dict[str, object], param: str, message: str
) -> None:
    """Layers and maps that the model does not have are refused with the field and what there is."""
    served = serve_fake(tiny_folder / "tokenizer.json", options)
    with pytest.raises(InputError, match=message) as caught:
        await served.service.embed(EmbedCall(["alpha"], **call))  # type: ignore[arg-type]
    served.service.close()
    assert caught.value.param == param


async def test_untrained_exits_are_refused_unless_the_operator_allows_them(
    tiny_folder: Path,
) -> None:
    """A raw early vector looks like any other, so nobody gets one without the operator's consent."""
    served = serve_fake(tiny_folder / "tokenizer.json")
    with pytest.raises(InputError, match="nestvec model fit --exits") as caught:
        await served.service.embed(EmbedCall(["alpha"], layers=(2,)))
    served.service.close()
    assert caught.value.param == "layers"
    limits = ServiceLimits(allows_untrained_layers=True)
    allowed = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(limits=limits))
    result = await allowed.service.embed(EmbedCall(["alpha"], layers=(2,)))
    allowed.service.close()
    assert result.layers == 2


async def test_a_model_that_always_runs_whole_has_no_exits(tiny_folder: Path) -> None:
    """Models with a graph of their own, in bf16, or of one layer have no exits."""
    served = serve_fake(tiny_folder / "tokenizer.json")
    served.backend.info = replace(served.backend.info, layers=0)
    with pytest.raises(InputError, match="all its layers"):
        await served.service.embed(EmbedCall(["alpha"], layers=(1,)))
    served.service.close()


def test_a_maps_space_is_named_by_what_decides_it() -> None:
    """A map's fingerprint follows its weights, source and layers, not its name."""
    original, renamed = random_map("a"), dataclasses.replace(random_map("a"), name="b")
    assert original.space == renamed.space
    others = [
        dataclasses.replace(original, bias=original.bias + 1),
        dataclasses.replace(original, source="other"),
        dataclasses.replace(original, layers=1),
        dataclasses.replace(original, takes_unit=True),
    ]
    assert len({original.space, *(other.space for other in others)}) == 5


def test_maps_are_affine() -> None:
    """A map is affine on vectors as pooled, or at unit length where it was fitted so."""
    raw = np.random.default_rng(0).standard_normal((3, HIDDEN)).astype(np.float32)
    plain, scaled = random_map("a"), random_map("a", unit=True)
    np.testing.assert_allclose(plain.apply(raw), raw @ plain.weight + plain.bias, rtol=1e-6)
    np.testing.assert_allclose(
        scaled.apply(raw), unit(raw) @ plain.weight + plain.bias, rtol=1e-5, atol=1e-5
    )
    identity = AffineMap(
        "same", MapKind.SVD, np.eye(HIDDEN, dtype=np.float32), np.zeros(HIDDEN, np.float32), "s"
    )
    np.testing.assert_array_equal(identity.apply(raw), raw)


async def test_those_who_measure_get_any_layer_as_it_is(
    tiny_folder: Path, options: ServedOptions
) -> None:
    """An empty map id gives any layer without a map, whatever is fitted; no request body can ask for it."""
    served = serve_fake(tiny_folder / "tokenizer.json", options)
    call = EmbedCall(["alpha"], layers=(2,), map_id="", normalize=False)
    result = await served.service.embed(call)
    served.service.close()
    np.testing.assert_allclose(result.vectors[0], pooled_exit(served, "alpha", 2), atol=1e-6)
    assert result.map_name == ""
