"""Requests of all kinds: every documented example, and what a broken or hostile client makes of it."""

import gzip
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.end_to_end.fuzz.mutate import as_json, mutated_bytes, mutated_json

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW")
TYPES = (
    "application/json",
    "text/plain",
    "multipart/form-data; boundary=b",
    "",
    "x/y; charset=utf-16",
)
PATHS = (
    *(
        "/",
        "//",
        "/v1",
        "/v1/v1/embeddings",
        "/v1/embeddings/",
        "/v1/embeddings/x",
        "/%2e%2e/etc/passwd",
    ),
    *(
        "/v1/files/../../etc/passwd",
        "/v1/files/%00",
        "/v1/models/%f0%9f%92%a9",
        "/openai/v1/embeddings",
    ),
    *("/openai/deployments/x/embeddings", "/engines/x/embeddings", "/v2/models/x/versions/1/infer"),
    *(
        "/admin/models",
        "/metrics",
        "/health",
        "/docs",
        "/openapi.json",
        "/v1/batches?limit=-1",
        "/" + "a" * 3000,
    ),
)
HEADERS: Mapping[str, tuple[str, ...]] = {
    "x-request-timeout-ms": ("0", "-1", "nan", "inf", "1e999", "5000", "x", "0x10"),
    "x-embed-priority": ("bulk", "interactive", "root", ""),
    "x-embed-token-vocab": ("model", "cl100k", "x"),
    "x-stainless-read-timeout": ("600", "-5", "nan", "abc"),
    "content-encoding": ("gzip", "br", "identity", "deflate", "gzip, gzip", ""),
    "inference-header-content-length": ("0", "-1", "10", "99999999999", "x"),
    "authorization": ("Bearer x", "Basic eDp5", "Bearer", "\x7f"),
    "x-request-id": ("a", "x" * 500, "{}", "req 1"),
    "accept": ("application/json", "text/html", "application/openmetrics-text", "*/*", "\x01"[:0]),
    "cache-control": ("no-store", "max-age=1"),
    "range": ("bytes=0-1", "bytes=-1", "bytes=9-1", "x"),
    "transfer-encoding": ("identity",),
}


@dataclass(frozen=True)
class Sent:
    """A request to send."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def operations_of(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The operations of an OpenAPI document with each example of their bodies: method, path, body."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = (
                operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            )
            examples = [example["value"] for example in content.get("examples", {}).values()]
            examples += [content["example"]] if "example" in content else []
            for body in examples or [{}]:
                yield method.upper(), path, body


def hostile(operations: list[tuple[str, str, Any]], count: int, seed: int) -> Iterator[Sent]:
    """Make so many hostile requests, the same ones for a seed."""
    chooser = random.Random(seed)
    for _ in range(count):
        method, path, body = chooser.choice(operations)
        path = "/".join(
            chooser.choice(("x", "file-1", "all-MiniLM-L6-v2", "model", "%00", "..", "1", "é"))
            if part.startswith("{")
            else part
            for part in path.split("/")
        )
        if chooser.random() < 0.05:
            path = chooser.choice(PATHS)
        if chooser.random() < 0.05:
            method = chooser.choice(METHODS)
        content = b"" if method in ("GET", "HEAD") else as_json(mutated_json(body, chooser))
        headers = {"content-type": chooser.choice(TYPES)} if chooser.random() < 0.1 else {}
        while chooser.random() < 0.25:
            name = chooser.choice(list(HEADERS))
            headers[name] = chooser.choice(HEADERS[name])
        kind = chooser.random()
        if kind < 0.15:
            content = mutated_bytes(content, chooser)
        elif kind < 0.2:
            content, headers["content-encoding"] = gzip.compress(content), "gzip"
        elif kind < 0.22:
            content, headers["content-encoding"] = (
                mutated_bytes(gzip.compress(content), chooser),
                "gzip",
            )
        elif kind < 0.24:
            content = b'{"input": "' + b"a " * chooser.randrange(200_000) + b'"}'
        elif kind < 0.26:
            content = chooser.randbytes(chooser.randrange(2000))
        headers.pop("transfer-encoding", None)
        yield Sent(method, path, content, headers)
