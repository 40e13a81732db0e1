"""Callers that mean harm, one behaviour a function: large products, silence, slowness, departures, odd parser states.

Each runs once on a connection of its own within a bounded time, and says with which status it was answered; 0 where the
connection ended without an answer. The module is run as a process of its own, so that what attackers compute does not
delay the honest caller beside them:

    python -m tests.end_to_end.chaos.hostile URL KEY MODEL SECONDS CONNECTIONS
"""

import asyncio
import gzip
import json
import random
import sys
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

PATIENCE_S: Final = 20.0
MIB: Final = 2**20
EMPTY_DEFLATE_BLOCKS: Final = b"\x00\x00\x00\xff\xff" * 600
OPEN_TRANSFER: Final = b"transfer-encoding: chunked\r\n"


@dataclass(frozen=True, slots=True)
class Attacker:
    """Where the server is, and the key that attackers have got hold of.

    Attributes:
        host: Address of the server.
        port: Its port.
        key: A valid key, used where a behaviour needs one; the others send none.
        model: Name of a served model.
        chooser: Decides sizes and moments.
    """

    host: str
    port: int
    key: str
    model: str
    chooser: random.Random

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        return await asyncio.open_connection(self.host, self.port)

    def head(self, path: str, *lines: bytes, length: int | None = None, key: str = "") -> bytes:
        """Return the head of a POST request."""
        named = [b"authorization: Bearer " + key.encode()] if key else []
        sized = [] if length is None else [b"content-length: %d" % length]
        fields = [b"host: localhost", b"content-type: application/json", *named, *sized, *lines]
        request = b"POST " + path.encode() + b" HTTP/1.1"
        return b"\r\n".join([request, *(line.strip() for line in fields), b"", b""])

    async def post(self, path: str, body: bytes, *lines: bytes) -> int:
        """Send a whole compressed request with the key, read all of its answer, and return the status."""
        packed = packed_body(body)
        reader, writer = await self.connect()
        try:
            coding = b"content-encoding: gzip"
            writer.write(self.head(path, coding, *lines, length=len(packed), key=self.key) + packed)
            await writer.drain()
            return await read_status(reader, drains=True)
        finally:
            await hang_up(writer)

    async def post_json(self, path: str, body: dict[str, Any]) -> int:
        """Send a JSON body, compressed."""
        return await self.post(path, json.dumps(body).encode())


@cache
def packed_body(body: bytes) -> bytes:
    """Return a body as gzip; there are some twenty bodies, each of which is sent many times."""
    return gzip.compress(body, 6)


async def read_status(reader: asyncio.StreamReader, *, drains: bool = False) -> int:
    """Return the status of an answer, 0 for none; with `drains` its body is read too, and thrown away."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if drains:
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while length > 0:
            piece = await reader.read(min(length, MIB))
            if not piece:
                break
            length -= len(piece)
    return status


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection, whatever state it is in."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def long_prompt(attacker: Attacker) -> int:
    """A prompt that is multiplied by the number of inputs."""
    mode = attacker.chooser.choice(["error", "end", "windows"])
    body = {"input": ["a"] * 2048, "prompt": "word and " * 7111, "truncate": mode}
    return await attacker.post_json("/v1/embeddings", body)


async def blank_prompt_of_documents(attacker: Attacker) -> int:
    """A prompt of a million blanks before a hundred documents, whose caller gives up after a second."""
    body = {
        "input": ["a b c. d e f."] * 100,
        "prompt": " " * 1_000_000,
        "late_chunking": {"splitter": "sentences"},
        "truncate": "windows",
    }
    return await attacker.post(
        "/v1/embeddings", json.dumps(body).encode(), b"x-request-timeout-ms: 1000"
    )


async def large_tensor(attacker: Attacker) -> int:
    """A tensor of millions of empty texts or ids, which compresses to 15 kB."""
    datatype = attacker.chooser.choice(["BYTES", "INT8"])
    raw = bytes(15 * MIB)
    shape = [len(raw) // 4] if datatype == "BYTES" else [1, len(raw)]
    tensor = {
        "name": "text" if datatype == "BYTES" else "input_ids",
        "datatype": datatype,
        "shape": shape,
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    size = b"inference-header-content-length: %d" % len(head)
    return await attacker.post(f"/v2/models/{attacker.model}/infer", head + raw, size)


async def dear_json(attacker: Attacker) -> int:
    """JSON that is dear to parse: many empty lists, lone surrogates, a byte order mark."""
    inside = attacker.chooser.choice(
        [
            b"[" + b",".join([b"[]"] * 340_000) + b"]",
            b'"' + b"\\ud800" * (15 * MIB // 6) + b'"',
            b"[" + b",".join([b"1"] * 399_000) + b"]",
        ]
    )
    mark = attacker.chooser.choice([b"", b"\xef\xbb\xbf"])
    return await attacker.post("/v1/embeddings", mark + b'{"input":"a","x":' + inside + b"}")


async def many_ids(attacker: Attacker) -> int:
    """Hundreds of thousands of token ids, written as fractions or to be decoded."""
    if attacker.chooser.random() < 0.5:
        ids = b",".join([b"5.0"] * 399_000)
        body = b'{"input":[' + ids + b"]}"
        return await attacker.post("/v1/embeddings", body, b"x-embed-token-vocab: model")
    return await attacker.post("/decode", b'{"ids":[' + b",".join([b"5"] * 399_000) + b"]}")


async def long_text(attacker: Attacker) -> int:
    """A text of a million characters, to be tokenized or embedded."""
    text = attacker.chooser.choice(["word " * 220_000, " " * 1_000_000, "字" * 300_000])
    path, field = attacker.chooser.choice(
        [("/tokenize", "inputs"), ("/embed", "inputs"), ("/v1/embeddings", "input")]
    )
    return await attacker.post_json(path, {field: text})


async def large_answer(attacker: Attacker) -> int:
    """What gives the largest answers: all token vectors, explained similarities."""
    if attacker.chooser.random() < 0.5:
        return await attacker.post_json("/embed_all", {"inputs": ["word " * 240] * 64})
    texts = ["word " * 240] * 16
    return await attacker.post_json("/v1/similarity", {"a": texts, "b": texts, "explain": True})


async def silence(attacker: Attacker) -> int:
    """A connection that sends nothing, or half a head."""
    reader, writer = await attacker.connect()
    try:
        if attacker.chooser.random() < 0.5:
            writer.write(b"POST /v1/embeddings HTTP/1.1\r\nhost: loc")
        return await read_status(reader)
    finally:
        await hang_up(writer)


async def endless_trailers(attacker: Attacker) -> int:
    """Trailers behind a chunked body that never end."""
    reader, writer = await attacker.connect()
    try:
        writer.write(attacker.head("/v1/embeddings", OPEN_TRANSFER))
        writer.write(b'd\r\n{"input":"x"}\r\n0\r\n')
        return await flood(reader, writer, b"x: y\r\n" * 10_000, 20 * MIB)
    finally:
        await hang_up(writer)


async def endless_part(attacker: Attacker) -> int:
    """A form whose part's headers, or whose other part, never end."""
    kind = attacker.chooser.choice([b'Content-Disposition: form-data; name="', b"x"])
    reader, writer = await attacker.connect()
    try:
        form = b"content-type: multipart/form-data; boundary=b"
        head = attacker.head("/v1/files", OPEN_TRANSFER, key=attacker.key)
        writer.write(head.replace(b"content-type: application/json", form))
        other = b'Content-Disposition: form-data; name="other"\r\n\r\n'
        start = b"--b\r\n" + (kind if kind != b"x" else other)
        writer.write(b"%x\r\n%s\r\n" % (len(start), start))
        piece = b"a" * 65_536
        return await flood(reader, writer, b"%x\r\n%s\r\n" % (len(piece), piece), 40 * MIB)
    finally:
        await hang_up(writer)


async def flood(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, piece: bytes, most_bytes: int
) -> int:
    """Send a piece again and again until the server answers, and return the status."""
    answer = asyncio.ensure_future(read_status(reader))
    try:
        sent = 0
        while sent < most_bytes and not answer.done():
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
            await asyncio.sleep(0)
        return await answer
    finally:
        answer.cancel()
        with suppress(asyncio.CancelledError, OSError, EOFError):
            await answer


async def trickled_bomb(attacker: Attacker) -> int:
    """A body of 16 kB that inflates to 16 MiB and then goes on with nothing."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = deflater.compress(b'{"input":"' + b"a" * (16 * MIB - 2000))
    start += deflater.flush(zlib.Z_SYNC_FLUSH)
    reader, writer = await attacker.connect()
    try:
        writer.write(
            attacker.head(
                "/v1/embeddings", b"content-encoding: gzip", OPEN_TRANSFER, key=attacker.key
            )
        )
        writer.write(b"%x\r\n%s\r\n" % (len(start), start))
        answer = asyncio.ensure_future(read_status(reader))
        while not answer.done():
            writer.write(b"%x\r\n%s\r\n" % (len(EMPTY_DEFLATE_BLOCKS), EMPTY_DEFLATE_BLOCKS))
            await writer.drain()
            await asyncio.wait([answer], timeout=0.5)
        return await answer
    finally:
        await hang_up(writer)


async def slow_reader(attacker: Attacker) -> int:
    """A caller that asks for a large answer and reads a little of it."""
    body = json.dumps({"input": ["word " * 100] * 128, "encoding_format": "float"}).encode()
    reader, writer = await attacker.connect()
    try:
        writer.write(attacker.head("/v1/embeddings", length=len(body), key=attacker.key) + body)
        status = await read_status(reader)
        for _ in range(10):
            await reader.read(2048)
            await asyncio.sleep(1)
        return status
    finally:
        writer.transport.abort()


async def departure(attacker: Attacker) -> int:
    """A caller that leaves at once after asking for much."""
    body = json.dumps({"input": ["word " * 200] * 512, "truncate": "windows"}).encode()
    _, writer = await attacker.connect()
    writer.write(attacker.head("/v1/embeddings", length=len(body), key=attacker.key) + body)
    await writer.drain()
    await asyncio.sleep(attacker.chooser.random())
    writer.transport.abort()
    return 0


async def odd_protocol(attacker: Attacker) -> int:
    """Bytes that are no plain HTTP/1.1 request: another version, an upgrade, noise, endless chunk extensions."""
    reader, writer = await attacker.connect()
    try:
        upgrade = (b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAEA")
        body = b'{"input":"x"}'
        start = attacker.chooser.choice(
            [
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                attacker.head("/v1/embeddings", *upgrade, length=len(body)) + body,
                attacker.chooser.randbytes(2000) + b"\r\n\r\n",
                attacker.head("/v1/embeddings", OPEN_TRANSFER) + b"d;" + b"a" * 200_000,
            ]
        )
        writer.write(start)
        await writer.drain()
        return await read_status(reader)
    finally:
        await hang_up(writer)


BEHAVIOURS: Final[tuple[Callable[[Attacker], Awaitable[int]], ...]] = (
    long_prompt,
    blank_prompt_of_documents,
    large_tensor,
    dear_json,
    many_ids,
    long_text,
    large_answer,
    silence,
    endless_trailers,
    endless_part,
    trickled_bomb,
    slow_reader,
    departure,
    odd_protocol,
)


async def attack(attacker: Attacker, behaviour: Callable[[Attacker], Awaitable[int]]) -> int:
    """Behave once, within a bounded time; return the status of the answer, 0 for none."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await behaviour(attacker)
    except (OSError, EOFError, TimeoutError):
        return 0


async def attack_for(
    duration_s: float, url: str, key: str, model: str, connections: int
) -> dict[str, int]:
    """Behave badly on many connections, in one way after the other; return how often each was answered with what."""
    address, statuses = urlsplit(url), Counter[str]()
    end_s = time.monotonic() + duration_s

    async def go_on(seed: int) -> None:
        chooser = random.Random(seed)
        attacker = Attacker(str(address.hostname), int(address.port or 80), key, model, chooser)
        while time.monotonic() < end_s:
            behaviour = chooser.choice(BEHAVIOURS)
            statuses[f"{behaviour.__name__} {await attack(attacker, behaviour)}"] += 1

    await asyncio.gather(*(go_on(seed) for seed in range(connections)))
    return dict(sorted(statuses.items()))


if __name__ == "__main__":
    url, key, model, seconds, connections = sys.argv[1:]
    print(json.dumps(asyncio.run(attack_for(float(seconds), url, key, model, int(connections)))))
