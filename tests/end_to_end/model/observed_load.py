"""A scripted mixed load that knows what it has sent: requests, inputs, tokens, refusals by their codes, batch lines."""

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from tests.support.server import RunningServer

EMBEDDINGS: Final = "/v1/embeddings"
STATIC: Final = "wordllama-l2-supercat-256"
MAX_INPUTS: Final = 64
MAX_BODY_BYTES: Final = 200_000
GOOD_LINES, BAD_LINES = 195, 5
JSON: Final = {"content-type": "application/json"}
WORD: Final = "word "

# What is refused, and how: method, path, what is sent, status, code.
REFUSALS: Final[tuple[tuple[str, str, dict[str, Any], int, str], ...]] = (
    ("POST", EMBEDDINGS, {"content": b"{", "headers": JSON}, 400, "invalid_json"),
    ("POST", EMBEDDINGS, {"json": {"input": 5}}, 400, "invalid_type"),
    ("POST", EMBEDDINGS, {"json": {"input": []}}, 400, "invalid_value"),
    ("POST", EMBEDDINGS, {"json": {"input": "a", "truncate_dim": 64}}, 400, "foreign_field"),
    ("POST", EMBEDDINGS, {"json": {"input": "a", "dimension": 64}}, 400, "unknown_field"),
    (
        "POST",
        EMBEDDINGS,
        {"json": {"input": ["a"] * (MAX_INPUTS + 1)}},
        400,
        "request_too_large",
    ),
    (
        "POST",
        EMBEDDINGS,
        {"content": b"{}", "headers": {**JSON, "content-encoding": "br"}},
        400,
        "invalid_encoding",
    ),
    ("POST", EMBEDDINGS, {"json": {"input": WORD * 9000}}, 400, "context_length_exceeded"),
    ("POST", "/v1/batches", {"json": {}}, 400, "missing_required_parameter"),
    (
        "POST",
        EMBEDDINGS,
        {"json": {"input": "a"}, "headers": {"authorization": "Bearer sk-wrong"}},
        401,
        "invalid_api_key",
    ),
    (
        "POST",
        EMBEDDINGS,
        {"json": {"input": "a"}, "headers": {"authorization": ""}},
        401,
        "missing_api_key",
    ),
    ("POST", EMBEDDINGS, {"json": {"input": "a", "model": "nope"}}, 404, "model_not_found"),
    ("GET", "/v1/files/file-none", {}, 404, "not_found"),
    ("POST", "/nowhere", {"json": {}}, 404, "unknown_url"),
    ("GET", EMBEDDINGS, {}, 405, "unknown_url"),
    ("POST", EMBEDDINGS, {"json": {"input": "a" * MAX_BODY_BYTES}}, 413, "body_too_large"),
    ("POST", "/embed", {"json": {"inputs": 5}}, 422, "invalid_type"),
    ("POST", "/embed_sparse", {"json": {"inputs": "a"}}, 424, "unsupported"),
    ("POST", EMBEDDINGS, {"json": {"input": "a", "model": "broken"}}, 503, "model_unavailable"),
    (
        "POST",
        EMBEDDINGS,
        {
            "json": {"input": [WORD * 500] * 60},
            "headers": {"x-request-timeout-ms": "1"},
        },
        504,
        "deadline_exceeded",
    ),
)


@dataclass
class MixedLoad:
    """Sends requests, and counts what it sent and what came back.

    Attributes:
        server: Where they go.
        key: A key without limits.
        slow_key: A key of one request a second.
        statuses: Answers by status.
        codes: Errors by code.
        inputs: Inputs answered with a vector, by model.
        tokens: Their tokens.
        hits: Inputs of `keep_vectors` whose vector was kept, by model.
        misses: Those whose vector was not.
        coalesced: Those of the misses that waited for the same one's run.
        saved_tokens: Tokens of the hits.
        requests_of_key: Answers to the key without limits.
        rate_refusals: Requests that the slow key was refused.
    """

    server: RunningServer
    key: str
    slow_key: str
    statuses: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    inputs: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    misses: Counter[str] = field(default_factory=Counter)
    coalesced: Counter[str] = field(default_factory=Counter)
    saved_tokens: Counter[str] = field(default_factory=Counter)
    requests_of_key: int = 0
    rate_refusals: int = 0
    _number: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(
        self, client: httpx.Client, method: str, path: str, key: str = "", **request: Any
    ) -> httpx.Response:
        """Send a request and count its answer; the vectors of OpenAI's dialect are counted too."""
        headers = {"authorization": f"Bearer {key or self.key}", **request.pop("headers", {})}
        headers = {name: value for name, value in headers.items() if value}
        answer = client.request(method, path, headers=headers, **request)
        with self._lock:
            self.statuses[answer.status_code] += 1
            if answer.is_success and path == EMBEDDINGS:
                content = answer.json()
                self.inputs[content["model"]] += len(content["data"])
                self.tokens[content["model"]] += content["usage"]["total_tokens"]
            code = "" if answer.is_success else _code_of(answer)
            self.codes[code] += not answer.is_success
            # A path that there is not is nobody's.
            has_key = headers.get("authorization") == f"Bearer {self.key}"
            self.requests_of_key += has_key and code != "unknown_url"
        return answer

    def refusals(self, client: httpx.Client) -> None:
        """Provoke each refusal once, those of TEI's dialect too, whose bodies name no code of ours."""
        for method, path, request, status, code in REFUSALS:
            answer = self.send(client, method, path, **request)
            assert answer.status_code == status, (code, answer.text)
            told = _code_of(answer)
            assert told in {code, ""}, answer.text
            if not told:
                self.codes[""] -= 1
                self.codes[code] += 1

    def rate_limit(self, client: httpx.Client) -> None:
        """Ask with the slow key until it has been refused twice."""
        while self.rate_refusals < 2:
            answer = self.send(client, "POST", EMBEDDINGS, self.slow_key, json={"input": "a"})
            self.rate_refusals += answer.status_code == httpx.codes.TOO_MANY_REQUESTS

    def flood(self) -> None:
        """Ask from many sides at once until the queue has refused somebody."""
        has_refused, ends_s = threading.Event(), time.monotonic() + 60

        def ask(place: int) -> None:
            with httpx.Client(base_url=self.server.url, timeout=60) as client:
                while not has_refused.is_set() and time.monotonic() < ends_s:
                    texts = [f"{place} {self._next()} {n} {WORD * 40}" for n in range(MAX_INPUTS)]
                    answer = self.send(client, "POST", EMBEDDINGS, json={"input": texts})
                    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
                        has_refused.set()

        threads = [threading.Thread(target=ask, args=(place,)) for place in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert has_refused.is_set()

    def keep_vectors(self) -> None:
        """Send new texts, and the same again, to two models: hits, misses and what was coalesced are known exactly.

        They are so because of where and when: over one connection, whose process has a cache of its own; one request
        after the other, so that none waits for another's run, but for a text that comes twice in its request; and
        before all else, so that the cache has room and lets nothing go.
        """
        with httpx.Client(base_url=self.server.url, timeout=60) as client:
            for name, count, doubled, times in ((STATIC, 40, 6, 9), ("second", 25, 0, 2)):
                new = [f"the same {self._next()}" for _ in range(count)]
                sent = [*new, *new[:doubled]]
                body = {"input": sent, "model": name}
                model = self.send(client, "POST", EMBEDDINGS, json=body).json()["model"]
                self.misses[model] += len(sent)
                self.coalesced[model] += doubled
                # What is made of a kept vector is no part of it.
                for dimensions in ([64, 256] * times)[:times]:
                    cut = {**body, "dimensions": dimensions, "output_dtype": "int8"}
                    usage = self.send(client, "POST", EMBEDDINGS, json=cut).json()["usage"]
                    self.hits[model] += len(sent)
                    self.saved_tokens[model] += usage["total_tokens"]

    def traffic(self, client: httpx.Client, seconds: float) -> None:
        """Send requests of several kinds for so long, all answered."""
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s:
            number = self._next()
            body = {"input": [f"text {number} {n}" for n in range(20)], f"mine{number}": 1}
            for request in (
                body,
                {"input": f"second {number}", "model": "second"},
                {"input": f"prompted {number}", "prompt": "own: "},
            ):
                assert self.send(client, "POST", EMBEDDINGS, json=request).is_success
            texts = [f"a text of tei {number}", f"another {number}"]
            assert self.send(client, "POST", "/embed", json={"inputs": texts}).is_success
            # TEI's dialect does not tell its tokens: they are the same that OpenAI's tells, now from the cache.
            usage = self.send(client, "POST", EMBEDDINGS, json={"input": texts}).json()["usage"]
            self.inputs[STATIC] += len(texts)
            self.tokens[STATIC] += usage["total_tokens"]

    def batch(self, client: httpx.Client) -> None:
        """Run a batch to its end, some of whose lines are refused."""
        bodies: list[dict[str, Any]] = [
            {"model": STATIC, "input": f"line {self._next()}"} for _ in range(GOOD_LINES)
        ]
        bodies += [{"model": STATIC, "input": []} for _ in range(BAD_LINES)]
        lines = "\n".join(
            json.dumps(
                {"custom_id": str(number), "method": "POST", "url": EMBEDDINGS, "body": body}
            )
            for number, body in enumerate(bodies)
        )
        files = {"file": ("lines.jsonl", lines)}
        sent = self.send(client, "POST", "/v1/files", files=files, data={"purpose": "batch"})
        body = {"input_file_id": sent.json()["id"], "endpoint": EMBEDDINGS}
        made = self.send(client, "POST", "/v1/batches", json={**body, "completion_window": "24h"})
        path, ends_s = f"/v1/batches/{made.json()['id']}", time.monotonic() + 60
        while (batch := self.send(client, "GET", path).json())["status"] != "completed":
            assert time.monotonic() < ends_s, batch
            time.sleep(0.2)
        counts = batch["request_counts"]
        assert (counts["completed"], counts["failed"]) == (GOOD_LINES, BAD_LINES)
        output = self.send(client, "GET", f"/v1/files/{batch['output_file_id']}/content").text
        answers = [json.loads(line)["response"]["body"] for line in output.splitlines()]
        self.inputs[STATIC] += len(answers)
        self.tokens[STATIC] += sum(answer["usage"]["total_tokens"] for answer in answers)

    def _next(self) -> int:
        """Return a number that no text has had yet."""
        with self._lock:
            self._number += 1
            return self._number


def _code_of(answer: httpx.Response) -> str:
    """Return the code of an error, "" where its dialect has none."""
    error = answer.json()["error"]
    return str(error["code"]) if isinstance(error, dict) else ""
