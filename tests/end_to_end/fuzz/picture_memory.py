"""What a server's memory comes to, at its peak, under hostile pictures from many connections at once.

    python -m tests.end_to_end.fuzz.picture_memory [--kind clip|naflex] [--connections 16] [--mutated 600]

It prints the peak of resident memory (VmHWM) of the server's process over what it held before, and the bound that
follows from what is documented: each thread of the front decodes one picture at a time, in 16 bytes a pixel; requests
under way hold their bodies, the texts that are parsed of them, and files; and the pixels that a model takes of their
pictures. It fails where the peak is beyond the bound, or an answer is of no caller's fault.
"""

import argparse
import base64
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from nestvec.config.settings import Settings
from nestvec.system.cpus import usable_cpus

from benchmarks.workers.picture_streams import write_model
from tests.end_to_end.chaos.dearest_requests import of
from tests.end_to_end.fuzz.parsers.pictures import sample_pictures, write_picture
from tests.end_to_end.fuzz.test_pictures import FORMS, flat, noise, of_files, small, spaced
from tests.engine.pictures.hostile import HOSTILE, encoded, pixels
from tests.model_store.two_towers.naflex.models import write_naflex
from tests.support.server import RunningServer, running_server

EMBEDDINGS = "/v1/embeddings"
MEGABYTE = 2**20
SEED = 12
PIXEL_BYTES = 16  # of a picture that is decoded
# A body, what is parsed of it, and its files.
BODY_COPIES = 3
# A picture as a model takes it: 256 patches of 16 by 16, and fewer pixels of CLIP ViT-B/32.
MODEL_BYTES = 3 * 256 * 256
MAX_LARGEST = 8  # pictures of sixteen million pixels in a request
FILE_BYTES = 11_000_000  # of all pictures in a body, without their base64
SPARE_BYTES = 64 * MEGABYTE  # for what a request needs beside its pictures
BOMBS = (
    "png of zipped texts",
    "jpeg of a thousand scans",
    "png of 81 million pixels",
    "png of one row",
    "webp of 268 million pixels",
)


@dataclass(frozen=True)
class Load:
    """Bodies that are sent over so many connections.

    Attributes:
        name: What they are.
        bodies: Builds each of them.
        statuses: What may come back.
    """

    name: str
    bodies: Sequence[Callable[[], bytes]]
    statuses: frozenset[int]


def mutated(folder: Path, count: int) -> Iterator[Callable[[], bytes]]:
    """Make requests of mutated pictures."""
    chooser, samples = random.Random(SEED), sample_pictures(folder)
    for _ in range(count):
        write_picture(folder, samples, chooser)
        text = base64.b64encode((folder / "picture").read_bytes()).decode()
        yield of(input=[{"image": text}])


def repeated(make: Callable[[], bytes], most: int) -> Callable[[], bytes]:
    """Return what builds a body of a picture, as often as its bytes allow, and no more often than said."""

    def body() -> bytes:
        content = make()
        return of_files(lambda: content, min(most, FILE_BYTES // len(content)))()

    return body


def loads(folder: Path, connections: int, count: int) -> list[Load]:
    """Return all loads: what allows most pixels, most pictures and most bytes, each as often as connections."""
    fine, refused = frozenset({200}), frozenset({400})
    either = fine | refused
    largest = {form: flat(form) for form in FORMS}
    largest["CMYK"] = lambda: encoded(pixels(4000, 4000).convert("CMYK"), "JPEG", quality=20)
    many = [
        *(
            (f"most pixels of {form}", repeated(make, MAX_LARGEST), fine)
            for form, make in largest.items()
        ),
        ("256 pictures", of_files(small, 256), fine),
        ("9 MB", of_files(lambda: encoded(noise(1700, 1800), "PNG")), fine),
        ("7 MB of line ends", spaced, fine),
        *((name, repeated(HOSTILE[name][0], 40), refused) for name in BOMBS),
    ]
    dear = [Load(name, [body] * connections, statuses) for name, body, statuses in many]
    bombs = [of_files(HOSTILE[name][0]) for name in HOSTILE]
    return [
        Load("mutated", list(mutated(folder, count)), either),
        *dear,
        Load("every hostile file", bombs, refused),
    ]


def status_bytes(server: RunningServer, name: str) -> int:
    """Return a figure of a process's memory, as the system tells it."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def send(client: httpx.Client, body: bytes) -> int:
    """Send a body, and return the status of the answer; a full server is asked again."""
    while True:
        answer = client.post(EMBEDDINGS, content=body, headers={"content-type": "application/json"})
        if answer.status_code not in (429, 503):
            return answer.status_code


def measure(server: RunningServer, load: Load, connections: int) -> int:
    """Send a load, and return the peak of resident memory that it led to, in bytes."""
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    built: dict[Callable[[], bytes], bytes] = {}
    bodies = [
        built.setdefault(make, make()) if make not in built else built[make] for make in load.bodies
    ]
    with (
        httpx.Client(base_url=server.url, timeout=1200) as client,
        ThreadPoolExecutor(connections) as threads,
    ):
        statuses = Counter(threads.map(partial(send, client), bodies))
    peak = status_bytes(server, "VmHWM")
    rest = status_bytes(server, "VmRSS")
    print(
        f"{load.name}: peak {peak / MEGABYTE:,.0f} MiB, afterwards {rest / MEGABYTE:,.0f} MiB, "
        f"statuses {dict(statuses)}",
        flush=True,
    )
    if set(statuses) - load.statuses:
        sys.exit(f"{load.name}: a status that it should not get")
    return peak


def bound_bytes(settings: Settings, connections: int) -> int:
    """Return what the server may hold beyond what it held at rest."""
    threads = settings.front_threads or usable_cpus()
    pictures = min(settings.max_pictures_per_request, settings.max_inputs_per_request)
    return (
        threads * PIXEL_BYTES * settings.max_picture_pixels
        + connections * BODY_COPIES * settings.max_body_bytes
        + connections * pictures * MODEL_BYTES
        + settings.vector_cache_bytes
        + SPARE_BYTES
    )


def main() -> None:
    """Write the model, serve it, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("clip", "naflex"), default="clip")
    for name, value in (("connections", 16), ("mutated", 600)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nestvec-pictures-") as scratch:
        folder = Path(scratch)
        model = folder / args.kind
        model.mkdir()
        if args.kind == "clip":
            write_model(model, layers=1)
        else:
            write_naflex(model)
        # Sixteen requests of 128 million pixels each take minutes, and all of them shall be done.
        settings = {"model": model, "cache_dir": folder / "cache", "request_timeout_s": 1200}
        with running_server(folder, **settings) as server:
            httpx.post(server.url + EMBEDDINGS, content=of_files(small)(), timeout=60)
            rest = status_bytes(server, "VmRSS")
            peaks = [
                measure(server, load, args.connections)
                for load in loads(folder, args.connections, args.mutated)
            ]
            after = status_bytes(server, "VmRSS")
    grown, bound = max(peaks) - rest, bound_bytes(Settings(), args.connections)
    print(
        f"{args.kind}: {rest / MEGABYTE:,.0f} MiB at rest, at most {grown / MEGABYTE:,.0f} MiB more, bound "
        f"{bound / MEGABYTE:,.0f} MiB; {after / MEGABYTE:,.0f} MiB afterwards"
    )
    if grown > bound:
        sys.exit("beyond the bound")


if __name__ == "__main__":
    main()
