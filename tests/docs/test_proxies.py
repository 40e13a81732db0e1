"""The files of deploy/proxies: every proxy takes its own, and all of them repeat the same requests and no others."""

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest
from nestvec.config.loading import load_settings
from nestvec.config.settings import Settings
from nestvec.processes.web_server import KEEP_ALIVE_S

from tests.end_to_end.proxies.running import ENVOY, HAPROXY, KINDS, NGINX, ProxyKind
from tests.processes.test_dearest_requests import posted_routes

# Routes that are posted to and do more than compute: they store, begin, end, load.
CREATE: Final = {
    *("/v1/files", "/files", "/v1/batches", "/batches", "/v1/reports"),
    *("/v1/batches/{batch_id}/cancel", "/batches/{batch_id}/cancel"),
    "/v1/reports/{report_id}/cancel",
    *("/admin/models/load", "/admin/models/unload", "/api/pull"),
}
# Any model's or vendor's method below these paths; of their methods, those that there are.
METHODS: Final = {
    "/v2/models/{rest:path}": ["/v2/models/m/infer", "/v2/models/m/versions/1/infer"],
    "/v1beta/models/{target:path}": ["/v1beta/models/m:embedContent"],
    "/v1/models/{target:path}": ["/v1/models/a/b:batchEmbedContents"],
}


def repeated(kind: ProxyKind) -> str:
    """Return the expression of a file for paths whose POST may be sent twice, for `re.search`."""
    text = kind.text()
    if kind is ENVOY:
        (found,) = re.findall(r'safe_regex: \{regex: "(/\|.*)"\}\}$', text, re.MULTILINE)
        return f"^(?:{found})$"
    pattern = r'^ +location ~ "(.*\|embed_all\|.*)" \{$'
    if kind is HAPROXY:
        pattern = r"^ +acl computes path_reg (.*)$"
    (found,) = re.findall(pattern, text, re.MULTILINE)
    return str(found)


def seconds(text: str) -> float:
    """Return a time as the proxies write it, in seconds."""
    number, unit = re.fullmatch(r"([\d.]+)(ms|s)", text).groups()  # type: ignore[union-attr] # an error is an error
    return float(number) / (1000 if unit == "ms" else 1)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_proxy_takes_its_file(kind: ProxyKind, tmp_path: Path) -> None:
    """The file, with ports filled in as its test does, is right for the proxy."""
    text = kind.fill(kind.text(), 20_001, (20_002, 20_003))
    assert [text.count(str(port)) for port in (20_001, 20_002, 20_003)] == [1, 1, 1]
    binary = kind.binary()
    if binary is None:
        pytest.skip(f"{kind.name} absent: `make test-proxies` installs it")
    file = tmp_path / kind.file
    file.write_text(text)
    command = kind.check(binary, file, tmp_path)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_sent_twice_only_computes(tmp_path: Path) -> None:
    """A POST is repeated exactly where it creates nothing: each route of the application is one or the other."""
    routes = posted_routes(tmp_path)
    assert routes >= CREATE
    for kind in KINDS:
        pattern = re.compile(repeated(kind))
        for route in routes:
            paths = METHODS.get(route, [re.sub(r"\{\w+(:path)?\}", "x", route)])
            for path in paths:
                expected = route not in CREATE
                assert bool(pattern.search(path)) is expected, f"{kind.name}: {path}"
                if path != "/":
                    assert bool(pattern.search(f"{path}/")) is expected, f"{kind.name}: {path}/"
        for path in ("/v1/files/embeddings/x", "/v1/%62atches", "/v1/batches;x", "/anything"):
            assert not pattern.search(path), f"{kind.name}: {path}"


def test_all_proxies_repeat_the_same() -> None:
    """The words of the three expressions are the same."""
    words = {kind.name: set(re.findall(r"\w{3,}", repeated(kind))) for kind in KINDS}
    assert words["envoy"] == words["nginx"] == words["haproxy"]


def test_times_fit_the_servers() -> None:
    """The server's own time-outs come first, and its checks fail before it closes its port."""
    server: Settings = load_settings({})
    envoy, nginx, haproxy = (kind.text() for kind in (ENVOY, NGINX, HAPROXY))

    def times(text: str, pattern: str) -> set[float]:
        found = {seconds(time) for time in re.findall(pattern, text, re.MULTILINE)}
        assert found, pattern
        return found

    waits = [
        times(envoy, r"^ +idle_timeout: (\w+)$"),
        times(nginx, r"proxy_read_timeout (\w+);"),
        times(haproxy, r"timeout server (\w+)$"),
    ]
    assert all(server.request_timeout_s < min(times_) for times_ in waits)
    kept = [
        times(envoy, r"^ +common_http_protocol_options: \{idle_timeout: (60\w+)\}$"),
        times(nginx, r"^ +keepalive_timeout (60\w+);"),
    ]
    assert all(max(times_) < KEEP_ALIVE_S for times_ in kept)
    for text, pattern in (
        (envoy, r"request_headers_timeout: (\w+)"),
        (nginx, r"client_header_timeout (\w+);"),
        (haproxy, r"timeout http-request (\w+)"),
    ):
        assert times(text, pattern) == {server.header_timeout_s}
    assert max(times(envoy, r"^ +interval: ([\w.]+)$")) < server.drain_grace_s
    noticed_s = max(times(haproxy, r" inter (\w+)")) + max(times(haproxy, r" fastinter (\w+)"))
    assert noticed_s < server.drain_grace_s
    (size,) = re.findall(r"client_max_body_size (\d+)m;", nginx)
    assert int(size) * 2**20 > server.max_body_bytes
