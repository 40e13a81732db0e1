"""The dearest request that each route allows: many small values, few large ones, and answers that are larger still."""

import base64
import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MEGABYTE = 2**20
DIMENSIONS = 256  # of the static model
INPUTS = 2048
WORDS = "alpha beta gamma " * 30
MODEL = "static"
KEY = "a-key-of-an-operator"
OUTPUT_TYPES = ("float", "base64", "int8", "uint8", "binary", "ubinary")


@dataclass(frozen=True)
class DearRequest:
    """A request at the limits of what a route allows.

    Attributes:
        route: The route's path, as the application has it.
        what: What is dear in it.
        body: Builds the body.
        path: The path that is asked for; "" for the route's own.
        headers: Headers beside the body's type.
        statuses: What may come back.
        is_quick: Whether it takes a fraction of a second.
    """

    route: str
    what: str
    body: Callable[[], bytes]
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    statuses: tuple[int, ...] = (200,)
    is_quick: bool = False

    @property
    def url(self) -> str:
        """The path that is asked for."""
        return self.path or self.route

    def wire(self) -> tuple[bytes, dict[str, str]]:
        """Return the body as it is sent, compressed, and its headers."""
        headers = {"content-type": "application/json", "content-encoding": "gzip", **self.headers}
        return gzip.compress(self.body(), 1), headers


def of(**body: Any) -> Callable[[], bytes]:
    """Return what builds a JSON body."""
    return lambda: json.dumps(body).encode()


def repeated(start: bytes, item: bytes, count: int, end: bytes) -> Callable[[], bytes]:
    """Return what builds a JSON body with so many equal items in it."""
    return lambda: start + b",".join([item] * count) + end


def tensor(datatype: str, raw: bytes, shape: list[int], name: str) -> tuple[bytes, dict[str, str]]:
    """Return a body with a tensor behind its JSON, and the header that says where."""
    parameters = {"binary_data_size": len(raw)}
    item = {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}
    head = json.dumps({"inputs": [item]}).encode()
    return head + raw, {"inference-header-content-length": str(len(head))}


def infer(
    what: str,
    datatype: str,
    raw: bytes,
    shape: list[int],
    name: str,
    status: int,
    *,
    is_quick: bool,
) -> DearRequest:
    """Return a request of the Open Inference Protocol."""
    body, headers = tensor(datatype, raw, shape, name)
    return DearRequest(
        "/v2/models/{rest:path}",
        what,
        lambda: body,
        f"/v2/models/{MODEL}/infer",
        headers,
        (status,),
        is_quick=is_quick,
    )


def tensors() -> Iterator[DearRequest]:
    """Yield tensors of many elements, of long ones, and of bytes that are no text."""
    zeros = bytes(15 * MEGABYTE)
    yield infer("empty texts", "BYTES", zeros, [len(zeros) // 4], "text", 400, is_quick=True)
    yield infer("a lying shape", "BYTES", zeros, [2], "text", 400, is_quick=True)
    yield infer("one row", "INT8", zeros, [1, len(zeros)], "input_ids", 400, is_quick=True)
    ids = np.full((INPUTS, 146), 7, "<i8").tobytes()
    yield infer("299,008 ids", "INT64", ids, [INPUTS, 146], "input_ids", 200, is_quick=False)
    text = b"\xff" * (8 * MEGABYTE)
    raw = len(text).to_bytes(4, "little") + text
    yield infer("no UTF-8", "BYTES", raw, [1], "text", 400, is_quick=False)
    flat = {"name": "text", "datatype": "BYTES", "shape": [INPUTS], "data": ["a"] * INPUTS}
    yield DearRequest(
        "/v2/models/{rest:path}", "a vector each", of(inputs=[flat]), f"/v2/models/{MODEL}/infer"
    )


def embeddings() -> Iterator[DearRequest]:
    """Yield requests for vectors on the routes of OpenAI and Azure, which other vendors share."""
    many, words = ["alpha"] * INPUTS, [WORDS] * INPUTS
    own = {"x-embed-token-vocab": "model"}
    floats = repeated(b'{"truncate":true,"input":[', b"5.0", 399_000, b"]}")
    yield DearRequest("/v1/embeddings", "ids as floats", floats, headers=own, is_quick=True)
    lists = repeated(b'{"truncate":true,"input":[', b"[" + b"7.0," * 189 + b"7]", 1570, b"]}")
    yield DearRequest("/v1/embeddings", "lists of floats", lists, headers=own, is_quick=True)
    yield DearRequest("/v1/embeddings", "texts", of(input=words, truncate=True))
    ones = [1] * len(many)
    yield DearRequest("/v1/embeddings", "groups", of(input=many, groups=ones, weights=ones))
    tokens = of(input=["word " * 7] * 2000, output_types=["dense", "tokens"], return_offsets=True)
    yield DearRequest("/v1/embeddings", "vectors of tokens, offsets", tokens)
    yield DearRequest("/v1/embeddings", "one text", of(input="a b " * 3_000_000, truncate=True))
    objects = [{"text": "alpha"}] * INPUTS
    yield DearRequest(
        "/v1/embeddings",
        "Jina's types",
        of(input=objects, embedding_type=OUTPUT_TYPES),
        is_quick=True,
    )
    yield DearRequest("/v1/embeddings", "Voyage's", of(input=many[:1000], truncation=True))
    fields = lambda: json.dumps({"input": "a", **{f"f{n:06}": n for n in range(30_000)}}).encode()  # noqa: E731 - as `of`
    yield DearRequest("/v1/embeddings", "unknown fields", fields, is_quick=True)
    spans = {"spans": [[n, n + 6] for n in range(0, 6 * INPUTS, 6)]}
    yield DearRequest(
        "/v1/embeddings",
        "late chunking",
        of(input="alpha " * INPUTS, late_chunking=spans),
        statuses=(200, 400),
    )
    yield DearRequest("/embeddings", "texts", of(input=many, encoding_format="base64"))
    azure = f"/openai/deployments/{MODEL}/embeddings"
    yield DearRequest(
        "/openai/deployments/{deployment:path}/embeddings", "texts", of(input=many), azure
    )
    yield DearRequest(
        "/engines/{deployment:path}/embeddings",
        "texts",
        of(input=many),
        f"/engines/{MODEL}/embeddings",
    )


def vendors_embeddings() -> Iterator[DearRequest]:
    """Yield requests for vectors on the routes of other vendors than OpenAI and Azure."""
    many, words = ["alpha"] * INPUTS, [WORDS] * INPUTS
    chunks = [["alpha"] * 256] * 8
    yield DearRequest(
        "/v1/contextualizedembeddings", "chunks", of(inputs=chunks), statuses=(200, 400)
    )
    yield DearRequest(
        "/v1/contextualizedembeddings", "Perplexity's", of(input=chunks), statuses=(200, 400)
    )
    letters = [{"content": [{"type": "text", "text": word}]} for word in words[:1000]]
    yield DearRequest("/v1/multimodalembeddings", "texts", of(inputs=letters))
    parts = {"content": [{"type": "text", "text": "a"}] * 40_000}
    yield DearRequest("/v1/multimodalembeddings", "parts", of(inputs=[parts]))
    yield DearRequest("/v2/embed", "texts", of(texts=words[:96], embedding_types=OUTPUT_TYPES))
    yield DearRequest("/v2/embed", "parts", of(inputs=[parts], truncate="END"))
    escapes = of(texts=["\x01" * 400_000], truncate="END")
    yield DearRequest("/v1/embed", "a text of escapes", escapes)
    yield DearRequest("/api/embed", "texts", of(input=many))
    yield DearRequest("/api/embeddings", "one text", of(prompt="a b " * 1_000_000))
    yield DearRequest("/pooling", "texts", of(input=many, encoding_format="float"))
    ids = repeated(b'{"inputs":[', b"[" + b"7," * 189 + b"7]", 1570, b"]}")
    yield DearRequest("/embed", "ids", ids)
    yield DearRequest("/embed_all", "tokens", of(inputs=["word " * 250] * 64), is_quick=True)
    body = {"inputs": ["alpha"] * 2}
    yield DearRequest("/vertex", "bodies", of(instances=[body] * (INPUTS // 2)))
    for route in ("/", "/invocations"):
        yield DearRequest(route, "texts", of(inputs=many))


def gemini() -> Iterator[DearRequest]:
    """Yield requests of Gemini's kind, under both versions of its paths."""
    contents = [{"content": {"parts": [{"text": WORDS}] * 9}, "title": WORDS}] * 100
    for prefix in ("/v1beta", "/v1"):
        yield DearRequest(
            f"{prefix}/models/{{model:path}}:batchEmbedContents",
            "Gemini's batch",
            of(requests=contents),
            f"{prefix}/models/{MODEL}:batchEmbedContents",
        )
        many_parts = repeated(b'{"content":{"parts":[', b'{"text":"a b c d "}', 1000, b"]}}")
        yield DearRequest(
            f"{prefix}/models/{{model:path}}:embedContent",
            "many parts",
            many_parts,
            f"{prefix}/models/{MODEL}:embedContent",
            is_quick=True,
        )
        yield DearRequest(
            f"{prefix}/models/{{target:path}}",
            "a method that is none",
            many_parts,
            f"{prefix}/models/{MODEL}:generateContent",
            statuses=(400,),
            is_quick=True,
        )


def comparisons() -> Iterator[DearRequest]:
    """Yield requests that compare texts."""
    many = ["alpha"] * (INPUTS - 1)
    long = ["alpha " * 100] * (INPUTS - 1)
    sides = {"left": [f"t{n}" for n in range(512)], "right": [f"u{n}" for n in range(512)]}
    yield DearRequest("/v1/similarity", "a matrix", of(**sides), is_quick=True)
    pair = ["word " * 120] * 2
    explained = of(pairs=[pair] * 16, explain=True)
    yield DearRequest("/v1/similarity", "explanations", explained, is_quick=True)
    many_labels = [f"label {n} " + "x" * 48 for n in range(1024)]
    labelled = of(input=[f"t{n}" for n in range(256)], labels=many_labels, template="about {}")
    yield DearRequest("/v1/classify", "texts by labels", labelled, is_quick=True)
    sides = {"left": ["word " * 120] * 47, "right": ["word " * 120] * 47}
    yield DearRequest("/v1/similarity", "BERTScores", of(**sides, metric="bertscore"))
    value = ("0.5," * DIMENSIONS)[:-1].encode()
    vectors = repeated(b'{"query":"a","vectors":[', b"[%s]" % value, 1530, b"]}")
    yield DearRequest("/v1/rescore", "lists", vectors, is_quick=True)
    packed = base64.b64encode(np.full(DIMENSIONS, 0.5, "<f4").tobytes()).decode()
    yield DearRequest("/v1/rescore", "base64", of(query="a", vectors=[packed] * (INPUTS - 1)))
    rescored = of(query="a", documents=long, return_documents=True)
    yield DearRequest("/v1/rescore", "documents", rescored)
    pages = ["alpha. " * 1500] * 50
    for splitter in ("sentences", "tokens", "markdown", "code"):
        chunked = of(input=pages, splitter=splitter, chunk_tokens=32)
        yield DearRequest("/v1/chunk", splitter, chunked)
    turning = of(input=["alpha. " * 1600] * 10, splitter="semantic", chunk_tokens=32)
    yield DearRequest("/v1/chunk", "semantic", turning)
    sentences = {"source_sentence": "a", "sentences": many}
    yield DearRequest("/similarity", "sentences", of(inputs=sentences))
    for route in ("/rerank", "/v1/rerank", "/v2/rerank"):
        body = of(query="a", documents=long, return_documents=True)
        yield DearRequest(route, "documents", body, statuses=(200, 400))
    fields = of(query="a", documents=[{"a": "x"}] * 2000, rank_fields=["a"] * 60_000)
    yield DearRequest("/v2/rerank", "fields by documents", fields, statuses=(400,), is_quick=True)
    for route in ("/score", "/v1/score"):
        yield DearRequest(route, "pairs", of(text_1="a", text_2=many), statuses=(200, 400))
    # The model here has no labels and no terms.
    yield DearRequest("/classify", "texts", of(input=many), statuses=(400, 404))
    yield DearRequest("/predict", "texts", of(inputs=[[t] for t in many]), statuses=(400, 404, 424))
    yield DearRequest("/embed_sparse", "texts", of(inputs=many), statuses=(400, 404, 424))


def others() -> Iterator[DearRequest]:
    """Yield what gives no vectors."""
    yield DearRequest("/tokenize", "one text", of(inputs=["a b c d e f g " * 80_000]))
    yield DearRequest("/tokenize", "a text", of(inputs=["a b c d e f g " * 8_000]), is_quick=True)
    yield DearRequest("/tokenize", "texts", of(inputs=["alpha " * 25] * INPUTS))
    yield DearRequest("/decode", "ids", repeated(b'{"ids":[', b"5", 399_000, b"]}"), is_quick=True)
    for route in ("/api/show", "/api/pull"):
        yield DearRequest(route, "a name", of(model=MODEL, x="y" * 8_000_000))
    yield DearRequest("/v2/repository/index", "nothing", of())
    for route in ("/admin/models/load", "/admin/models/unload"):
        body = of(model="x" * 8_000_000)
        yield DearRequest(route, "a name", body, statuses=(400, 404, 422))
    # Uploads are read in pieces, and written in threads.
    form = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    form += b'--b\r\nContent-Disposition: form-data; name="file"; filename="f.jsonl"\r\n\r\n'
    form += b'{"custom_id":"a"}\n' * 200_000 + b"\r\n--b--\r\n"
    multipart = {"content-type": "multipart/form-data; boundary=b"}
    for route in ("/v1/files", "/files"):
        refused = (200, 201, 400, 413, 415, 422)
        yield DearRequest(route, "a file", lambda: form, headers=multipart, statuses=refused)
    for route in ("/v1/batches", "/batches"):
        batch = of(input_file_id="file-" + "x" * 8_000_000, endpoint="/v1/embeddings")
        yield DearRequest(route, "an id", batch, statuses=(400, 404, 422))
        cancel = route + "/{batch_id}/cancel"
        yield DearRequest(cancel, "no batch", of(), f"{route}/batch-1/cancel", statuses=(404,))


def reports() -> Iterator[DearRequest]:
    """Yield reports, which are made behind the answer; too many wait for some of them."""
    statuses = (200, 400, 429)
    texts = [f"{WORDS} {n}" for n in range(2_000)]
    yield DearRequest("/v1/reports", "texts", of(report="outliers", texts=texts), statuses=statuses)
    pairs = [["alpha", "beta"]] * 20_000
    yield DearRequest("/v1/reports", "pairs", of(report="bitext", pairs=pairs), statuses=statuses)
    many = of(report="drift", texts=["a"] * 400_000, reference=["a"] * 400_000)
    yield DearRequest("/v1/reports", "far too many", many, statuses=(400, 429), is_quick=True)
    route = "/v1/reports/{report_id}/cancel"
    yield DearRequest(route, "no report", of(), "/v1/reports/report_1/cancel", statuses=(404,))


def dearest_requests() -> list[DearRequest]:
    """Return the dearest requests of every route that is posted to."""
    return [
        *tensors(),
        *embeddings(),
        *vendors_embeddings(),
        *gemini(),
        *comparisons(),
        *others(),
        *reports(),
    ]
