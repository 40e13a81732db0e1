"""Pictures of strangers against a real server: no status of a fault, and no request that holds the event loop."""

import base64
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.end_to_end.chaos.dearest_requests import KEY, DearRequest, of
from tests.end_to_end.fuzz.parsers.pictures import sample_pictures, write_picture
from tests.engine.pictures.hostile import HOSTILE, encoded, pixels
from tests.model_store.two_towers.naflex.models import write_naflex
from tests.model_store.two_towers.towers import write_model
from tests.processes.test_dearest_requests import MAX_HELD_MS, held_ms
from tests.support.loop_ticks import watched
from tests.support.server import RunningServer, running_server

pytestmark = [pytest.mark.process, pytest.mark.load]
MUTATED = 600
MODEL, NAFLEX = "clip", "naflex"
FORMS = ("PNG", "JPEG", "WEBP", "GIF")
EMBEDDINGS = "/v1/embeddings"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Path]]:
    """A server of a tiny CLIP and a tiny SigLIP 2 NaFlex, and where long ticks of its loop are noted."""
    folder = tmp_path_factory.mktemp("pictures")
    ticks = folder / "ticks"
    settings = {
        "model": write_model(folder / MODEL, "clip"),
        "served_model_name": MODEL,
        "models": json.dumps({NAFLEX: {"model": str(write_naflex(folder / NAFLEX))}}),
        "cache_dir": folder / "cache",
        "api_keys": KEY,
    }
    with running_server(folder, partial(watched, file=ticks), **settings) as running:
        yield running, ticks


@pytest.fixture
def client(server: tuple[RunningServer, Path]) -> Iterator[httpx.Client]:
    """A client of the server, which has read a picture already: Pillow is loaded."""
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    with httpx.Client(base_url=server[0].url, timeout=120, headers=headers) as client:
        assert client.post(EMBEDDINGS, content=of_files(small)()).status_code == 200
        yield client


def text_of(content: bytes) -> str:
    """Return a file as base64."""
    return base64.b64encode(content).decode()


def noise(width: int, height: int) -> Image.Image:
    """Return a picture that nothing compresses."""
    return Image.frombytes("RGB", (width, height), random.Random(5).randbytes(3 * width * height))


def of_files(make: Callable[[], bytes], count: int = 1) -> Callable[[], bytes]:
    """Return what builds a body of a picture, several times over; the picture is made then."""

    def body() -> bytes:
        return of(input=[{"image": text_of(make())}] * count)()

    return body


def flat(form: str) -> Callable[[], bytes]:
    """Return what makes a picture of as many pixels as one may have, in few bytes."""
    options = {"quality": 20} if form == "WEBP" else {}
    return lambda: encoded(pixels(4000, 4000), form, **options)


def small() -> bytes:
    """Return a picture of a usual request, a thousandth of what one may be."""
    return encoded(pixels(), "PNG")


def spaced() -> bytes:
    """Return a body of a picture with blanks as long as a body may be."""
    return of(input=[{"image": text_of(small()) + "\n" * 7_000_000}])()


def dear(what: str, body: Callable[[], bytes], *statuses: int) -> DearRequest:
    """Return a request for vectors of pictures."""
    return DearRequest(EMBEDDINGS, what, body, statuses=statuses or (200,))


# What bodies, pixels and numbers of pictures allow at most.
DEAREST = [
    *(
        dear(name, of_files(HOSTILE[name][0]), 400)
        for name in (
            "png of zipped texts",
            "jpeg of a thousand scans",
            "png of 81 million pixels",
            "webp of 268 million pixels",
        )
    ),
    *(dear(f"16 million pixels of {form}", of_files(flat(form))) for form in FORMS),
    dear("256 pictures", of_files(small, 256)),
    DearRequest(
        "/v1/similarity",
        "256 pictures, each with each",
        of(left=[{"image": text_of(small())}] * 256),
    ),
    DearRequest(
        "/v1/classify",
        "255 pictures by 512 labels",
        of(input=[{"image": text_of(small())}] * 255, labels=[f"label {n}" for n in range(512)]),
    ),
    DearRequest(
        "/v1/rerank",
        "a picture and 255 pictures",
        of(query={"image": text_of(small())}, documents=[{"image": text_of(small())}] * 255),
    ),
    dear("9 MB", of_files(lambda: encoded(noise(1700, 1800), "PNG"))),
    dear("7 MB of line ends", spaced),
    dear("base64 of zeros", of(input=[{"image": "A" * 13_000_000}]), 400),
]


@pytest.mark.parametrize("request_", DEAREST, ids=lambda r: r.what)
def test_no_pictures_hold_the_loop(
    server: tuple[RunningServer, Path],
    client: httpx.Client,
    request_: DearRequest,
) -> None:
    """The loop's thread computes for no more than 50 ms between two ticks, whatever pictures are sent."""
    took_ms, status = held_ms(client, server[1], request_)
    print(f"loop held, {request_.what}: {took_ms:.0f} ms, status {status}")
    assert status in request_.statuses
    assert took_ms <= MAX_HELD_MS


@pytest.mark.parametrize("model", [MODEL, NAFLEX])
def test_mutated_pictures_are_the_callers_error(
    client: httpx.Client, tmp_path: Path, model: str
) -> None:
    """Of hundreds of mutated files each gets a vector or a reason, and the server goes on."""
    chooser = random.Random(11)
    samples = sample_pictures(tmp_path)
    statuses: Counter[int] = Counter()
    for _ in range(MUTATED):
        write_picture(tmp_path, samples, chooser)
        content = (tmp_path / "picture").read_bytes()
        body = of(model=model, input=[{"image": text_of(content)}])()
        answer = client.post(EMBEDDINGS, content=body)
        statuses[answer.status_code] += 1
        if answer.status_code != 200:
            assert answer.json()["error"]["message"]
    print(f"{MUTATED} mutated pictures, {model}: statuses {dict(statuses)}")
    assert set(statuses) <= {200, 400}
    assert statuses[200] > 0
    assert statuses[400] > MUTATED / 2
