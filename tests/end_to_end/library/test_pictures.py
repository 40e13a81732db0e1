"""`nestvec.Embedder` with pictures: their forms, their order among texts, slices of many, and errors that name them."""

import asyncio
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec import Embedder
from nestvec.assembly.library import inputs
from nestvec.engine.types import FloatArray
from nestvec.errors import InputError
from PIL import Image

from tests.engine.pictures.forms import FORMS, encoded
from tests.model_store.two_towers.towers import HERE, TEXTS, write_model

FILES = {name: make() for name, make in FORMS.items()}
EXPECTED: dict[str, FloatArray] = dict(zip(FORMS, np.load(HERE / "clip_pictures.npy"), strict=True))
OF_TEXTS: FloatArray = np.load(HERE / "clip_texts.npy")
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file of each form of picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def embedder(folder: Path) -> Iterator[Embedder]:
    """An embedder with a tiny CLIP."""
    model = str(write_model(folder / "clip", "clip"))
    with Embedder(model, cache_dir=folder / "cache") as made:
        yield made


def image_of(name: str) -> Image.Image:
    """Return a form of picture as Pillow opens it, with none of its pixels read yet."""
    return Image.open(io.BytesIO(FILES[name]))


def test_bytes_paths_and_images_are_pictures(embedder: Embedder, folder: Path) -> None:
    """Each form of file gives transformers' vector: as bytes, as a path, and as Pillow's image of any mode."""
    forms: list[Callable[[str], Any]] = [FILES.__getitem__, lambda name: folder / name, image_of]
    for make in forms:
        vectors = embedder.embed([make(name) for name in FORMS])
        assert np.abs(vectors - np.stack(list(EXPECTED.values()))).max() < TOLERANCE
    views: list[Any] = [bytearray(FILES["png"]), memoryview(FILES["png"])]
    assert np.abs(embedder.embed(views) - EXPECTED["png"]).max() < TOLERANCE


def test_one_picture_gives_one_vector(embedder: Embedder, folder: Path) -> None:
    """As a text does, whichever form it has."""
    for one in (FILES["jpeg"], folder / "jpeg", image_of("jpeg")):
        vector = embedder.embed(one)
        assert vector.shape == (24,)
        assert np.abs(vector - EXPECTED["jpeg"]).max() < TOLERANCE
    vector = asyncio.run(embedder.aembed(folder / "jpeg", dimensions=8))
    cut = EXPECTED["jpeg"][:8]
    np.testing.assert_allclose(vector, cut / np.linalg.norm(cut), atol=TOLERANCE)


def test_texts_and_pictures_keep_their_order(
    embedder: Embedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they are several calls of the engine; a string is a text, though a file has its name."""
    taken: list[int] = []
    read = inputs.read_pictures

    async def note(values: Any, name: str, first: int = 0) -> Any:
        taken.append(len(values))
        return await read(values, name, first)

    monkeypatch.setattr("nestvec.assembly.library.calls.read_pictures", note)
    names = list(FORMS) * 6
    mixed = [each for name in names for each in (TEXTS[2], folder / name)]
    vectors = embedder.embed(mixed)
    assert sum(taken) == len(mixed)
    assert max(taken) <= 2 * 64
    assert len(taken) > 1
    assert np.abs(vectors[::2] - OF_TEXTS[2]).max() < TOLERANCE
    assert np.abs(vectors[1::2] - [EXPECTED[name] for name in names]).max() < TOLERANCE
    grouped = embedder.embed(mixed, groups=[2] * len(names))
    both = OF_TEXTS[2] + np.array([EXPECTED[name] for name in names])
    unit = both / np.linalg.norm(both, axis=1, keepdims=True)
    np.testing.assert_allclose(grouped, unit, atol=TOLERANCE)
    as_text = embedder.embed(str(folder / "png"), truncate="end")
    assert np.abs(as_text - EXPECTED["png"]).max() > 0.1


def test_large_files_go_a_few_at_a_time() -> None:
    """What is in memory at once is bounded in bytes, too: of images, those of their pixels."""
    large: list[Any] = [bytes(2**20), Image.new("L", (1024, 1024)), "text", b"small"]
    assert inputs.text_costs(large, "texts") == [16, 48, 1, 16]
    assert inputs.text_costs(["a", "b"], "texts") is None


def test_an_image_of_many_pixels_is_no_larger_than_they_are(embedder: Embedder) -> None:
    """What bounds files of a server's callers does not stand in the way of an image that is in memory anyway."""
    large, small = (Image.new("RGB", size, (20, 120, 220)) for size in ((1900, 1850), (50, 50)))
    vectors = embedder.embed([large, encoded(small, "PNG")])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"no picture", "no picture"),
        (FILES["png"][:60], "damaged"),
        (Path("not there"), "No such file"),
        (Path(), "Is a directory"),
        (Image.new("RGB", (0, 5)), "no pixels"),
    ],
)
def test_errors_name_the_picture(embedder: Embedder, bad: Any, reason: str) -> None:
    """Also what cannot be read at all is an InputError with the index in the list that was given."""
    with pytest.raises(InputError, match=reason) as caught:
        embedder.embed(["a", FILES["jpeg"], bad])
    assert caught.value.input_index == 2
    assert "texts[2]" in " ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


def test_what_is_neither_text_nor_picture(embedder: Embedder) -> None:
    """The error says what would be one."""
    wrong: Any = [FILES["jpeg"], np.zeros((4, 4, 3), np.uint8)]
    with pytest.raises(InputError, match=r"texts\[1\] must be a text, or a picture .* not ndarray"):
        embedder.embed(wrong)


def test_pictures_are_ranked(embedder: Embedder, folder: Path) -> None:
    """By cosine, for a query of either kind."""
    documents: list[Any] = [FILES["png"], TEXTS[2], folder / "jpeg", image_of("wide")]
    rows = np.stack([EXPECTED["png"], OF_TEXTS[2], EXPECTED["jpeg"], EXPECTED["wide"]])
    for query, vector in ((TEXTS[1], OF_TEXTS[1]), (folder / "small", EXPECTED["small"])):
        ranked = embedder.rerank(query, documents)
        scores = rows @ vector
        assert [each.index for each in ranked] == np.argsort(-scores).tolist()
        np.testing.assert_allclose([each.score for each in ranked], -np.sort(-scores), atol=1e-5)
    with pytest.raises(InputError, match="no picture") as caught:
        embedder.rerank("a", ["a", b"no picture"])
    assert (caught.value.param, caught.value.input_index) == ("documents", 1)
