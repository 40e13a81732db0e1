"""The largest requests that the default bounds allow, by route, and how far the server's memory may grow by each."""

import base64
import gzip
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MIB: Final = 2**20
# The default of `max_body_bytes`, less what is around its largest field.
BODY: Final = 16 * MIB - 8192
# Of `max_inputs_per_request`.
INPUTS: Final = 2048
# As many values as JSON may have.
VALUES: Final = 399_000
GZIP: Final = {"content-encoding": "gzip"}
RESET_PEAK: Final = "5"


@dataclass(frozen=True, slots=True)
class LargestRequest:
    """A request at the bounds.

    Attributes:
        path: Its path.
        body: Makes its body.
        growth_bytes: How far the server's memory may grow by it, at its peak.
        headers: Its headers.
        statuses: What it may be answered with.
    """

    path: str
    body: Callable[[], bytes]
    growth_bytes: int
    headers: Mapping[str, str] = field(default_factory=dict)
    statuses: tuple[int, ...] = (200,)


def texts(each: int, *, count: int = INPUTS, name: str = "input", **fields: object) -> bytes:
    """A body of so many texts of so many bytes."""
    return json.dumps({name: ["word " * (each // 5)] * count, **fields}).encode()


def wide_text(**fields: object) -> bytes:
    """A body of one text with a character beyond the basic plane, so that Python holds each in four bytes."""
    start = json.dumps({"truncate": True, **fields}).encode()[:-1]
    return start + b', "input": "' + "🙂".encode() + b"word " * (BODY // 5 - 20) + b'"}'


def tensor(name: str, datatype: str, shape: list[int], content: bytes) -> bytes:
    """A body of the Open Inference Protocol with one binary tensor; its JSON is padded to 200 bytes."""
    inputs = {
        "name": name,
        "datatype": datatype,
        "shape": shape,
        "parameters": {"binary_data_size": len(content)},
    }
    return json.dumps({"inputs": [inputs]}).encode().ljust(200) + content


def upload(content: bytes) -> bytes:
    """A form with a file."""
    return (
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        + content
        + b"\r\n--x--\r\n"
    )


def stored(dimensions: int) -> bytes:
    """A body of as many stored vectors as there may be inputs."""
    vector = base64.b64encode(struct.pack(f"<{dimensions}f", *[0.5] * dimensions)).decode()
    return json.dumps({"query": "a", "vectors": [vector] * (INPUTS - 1)}).encode()


def values(count: int, unit: bytes = b"1", *, start: bytes = b"") -> bytes:
    """A body with a field of so many values that nobody reads."""
    return start + b'{"input":"a","user":"b","x":[' + b",".join([unit] * count) + b"]}"


def largest_requests(model: str, dimensions: int) -> dict[str, LargestRequest]:
    """The largest requests to a server of a model of texts."""
    infer = f"/v2/models/{model}/infer"
    binary = {"inference-header-content-length": "200"}
    form = {"content-type": "multipart/form-data; boundary=x"}
    embeddings = "/v1/embeddings"
    words = "word " * 126
    return {
        # Where the tokenizer has no place to cut it is refused, after some of it was read.
        "one text": LargestRequest(embeddings, wide_text, 10 * BODY, statuses=(200, 400)),
        "texts": LargestRequest(
            embeddings,
            lambda: texts(BODY // INPUTS - 8, truncate=True),
            6 * BODY,
            statuses=(200, 400),
        ),
        "most tokens": LargestRequest(embeddings, lambda: texts(690), 6 * BODY),
        "short texts": LargestRequest(embeddings, lambda: texts(5), 4 * BODY),
        "token ids": LargestRequest(
            embeddings,
            lambda: json.dumps({"input": [[7] * 140] * INPUTS, "truncate": True}).encode(),
            4 * BODY,
            {"x-embed-token-vocab": "model"},
        ),
        "values": LargestRequest(embeddings, lambda: values(VALUES), 4 * BODY, statuses=(200, 400)),
        "values and a BOM": LargestRequest(
            embeddings, lambda: values(VALUES, start=b"\xef\xbb\xbf"), 4 * BODY, statuses=(200, 400)
        ),
        "too many objects": LargestRequest(
            embeddings, lambda: values(BODY // 3 - 100, b"{}"), 4 * BODY, statuses=(400,)
        ),
        "backslashes": LargestRequest(
            embeddings,
            lambda: b'{"truncate": true, "input": "' + b"\\\\" * (BODY // 2 - 50) + b',,"}',
            6 * BODY,
        ),
        "lone surrogates": LargestRequest(
            embeddings,
            lambda: b'{"truncate": true, "input": "' + b"\\ud800" * (BODY // 6 - 50) + b'"}',
            8 * BODY,
        ),
        "a bomb": LargestRequest(
            embeddings, lambda: gzip.compress(b" " * 200 * MIB), 3 * BODY, GZIP, (413,)
        ),
        "empty texts in a tensor": LargestRequest(
            infer,
            lambda: tensor("text", "BYTES", [BODY // 4], bytes(BODY // 4 * 4)),
            6 * BODY,
            binary,
            (400,),
        ),
        "ids in a tensor": LargestRequest(
            infer,
            lambda: tensor("input_ids", "INT8", [1, BODY], bytes(BODY)),
            6 * BODY,
            binary,
            (400,),
        ),
        "embed": LargestRequest(
            "/embed",
            lambda: texts(BODY // INPUTS - 8, name="inputs", truncate=True),
            6 * BODY,
            statuses=(200, 422),
        ),
        "embed_all": LargestRequest(
            "/embed_all",
            lambda: json.dumps({"inputs": ["word " * 200] * 64, "truncate": True}).encode(),
            16 * BODY,
        ),
        "tokenize": LargestRequest(
            "/tokenize",
            lambda: texts(1000, count=1000, name="inputs"),
            4 * BODY,
            statuses=(200, 422),
        ),
        "decode": LargestRequest(
            "/decode",
            lambda: json.dumps({"ids": [5] * VALUES}).encode(),
            4 * BODY,
            statuses=(200, 400, 422),
        ),
        "a matrix": LargestRequest(
            "/v1/similarity",
            lambda: json.dumps({"left": ["a"] * 512, "right": ["b"] * 512}).encode(),
            4 * BODY,
        ),
        "explained pairs": LargestRequest(
            "/v1/similarity",
            lambda: json.dumps({"pairs": [[words, words]] * 16, "explain": True}).encode(),
            6 * BODY,
        ),
        "texts by labels": LargestRequest(
            "/v1/classify",
            lambda: json.dumps(
                {"input": ["a"] * 256, "labels": [f"{n} " + "x" * 30 for n in range(1024)]}
            ).encode(),
            6 * BODY,
        ),
        "rescore": LargestRequest("/v1/rescore", lambda: stored(dimensions), 4 * BODY),
        "rerank": LargestRequest(
            "/v1/rerank",
            lambda: json.dumps(
                {"query": "a", "documents": ["word " * (BODY // INPUTS // 5 - 4)] * (INPUTS - 1)}
            ).encode(),
            6 * BODY,
            statuses=(200, 400, 424),
        ),
        "ollama": LargestRequest(
            "/api/embed",
            lambda: texts(BODY // INPUTS - 8, model=model),
            6 * BODY,
            statuses=(200, 400),
        ),
        "a prompt": LargestRequest(
            embeddings,
            lambda: texts(5, prompt="word and " * (MIB // 9), truncate="windows"),
            4 * BODY,
            statuses=(200, 400),
        ),
        "a file": LargestRequest("/v1/files", lambda: upload(b"a" * 64 * MIB), BODY, form),
        "a file of line ends": LargestRequest(
            "/v1/files", lambda: upload(b"\r\n--" * 8 * MIB), BODY, form
        ),
        "a compressed file": LargestRequest(
            "/v1/files", lambda: gzip.compress(upload(b"a" * 200 * MIB)), BODY, {**form, **GZIP}
        ),
    }


def reset_peak(pid: int) -> int:
    """Begin to measure the peak of a process's memory anew; returns what it takes now, in bytes.

    Raises:
        OSError: The system does not allow it.
    """
    Path(f"/proc/{pid}/clear_refs").write_text(RESET_PEAK)
    return memory_of(pid, "VmRSS")


def memory_of(pid: int, kind: str) -> int:
    """Return a process's memory in bytes: `VmRSS`, what it takes now, or `VmHWM`, its peak."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(kind)
