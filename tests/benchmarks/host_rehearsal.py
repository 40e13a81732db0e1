"""The way to a GPU host without a network, rehearsed on the fake device: bundle, doctor, the first step, a server.

The host is as hosts that are lent are: its Python is that of a venv which another venv's Python made, has a part of the
packages, an onnxruntime for CPUs among them, and CUDA's libraries in a folder of their own. Values mean nothing on the
fake device, so the server is made to take them for right.

Usage: python -m tests.benchmarks.host_rehearsal [--python python3.12] [--folder FOLDER]
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

import httpx

from benchmarks.gpu.bundle import CUDA, LOCK, environment_of, fill, pins_of
from benchmarks.models import MINILM, write_model
from benchmarks.processes import Server
from tests.backends.cuda.fake_device import LIBRARY, build_library

ROOT = Path(__file__).parents[2]
HOST_HAS = (
    "httpx",
    "huggingface-hub",
    "numpy",
    "nvidia-ml-py",
    "onnx",
    "safetensors",
    "tokenizers",
    "uvloop",
)
# Nobody listens there: what wants to reach the network fails at once.
NO_NETWORK = {
    **dict.fromkeys(
        ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"
    ),
    "no_proxy": "127.0.0.1",
    "PIP_NO_INDEX": "1",
}
# For every process of the host: the fake's runtime, which gives ones, and no comparison of vectors.
PATCHES = """
import os
try:
    from nestvec.backends.cuda import runtime
    from nestvec.model_store.artefacts import probes
except ImportError:  # a process of another program
    pass
else:
    runtime.RUNTIME_NAMES = (os.environ["FAKE_CUDA"],)
    begin_copy = runtime.CudaDevice.copy_out
    def copy_ones(self, host, address, **shape):
        begin_copy(self, host, address, **shape)
        host.reshape(-1).view("float32")[:] = 1.0
    runtime.CudaDevice.copy_out = copy_ones
    probes.check_probes = lambda *_, **__: None
"""


def make_host(python: str, folder: Path) -> tuple[Path, str]:
    """Make the host's environment; returns its interpreter and the version of Python."""
    run([python, "-m", "venv", "--without-pip", str(folder / "base")])
    run([str(folder / "base/bin/python"), "-m", "venv", "--without-pip", str(folder / "venv")])
    host = folder / "venv/bin/python3"
    code = "import sys, sysconfig; print('%d.%d' % sys.version_info[:2], sysconfig.get_paths()['purelib'])"
    version, site = run([str(host), "-c", code]).split()
    pins = pins_of(LOCK.read_text(), environment_of(version))
    fill(Path(site), pins, version, [name for name in pins if CUDA.match(name)], HOST_HAS)
    layer = folder / "layer"
    layer.mkdir()
    (layer / "nvidia").symlink_to(Path(sysconfig.get_paths()["purelib"]) / "nvidia")
    (Path(site) / "layer.pth").write_text(f"{layer}\n")
    # The build for CPUs, whose metadata would make onnxruntime-gpu a second one in the same folder.
    other = Path(site) / "onnxruntime-1.30.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime\nVersion: 1.30.0\n")
    return host, version


def run(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it prints; ends with its output where it fails."""
    completed = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    if completed.returncode:
        sys.exit(f"{' '.join(command)}\n{completed.stdout}{completed.stderr}")
    return completed.stdout


def check_first_step(folder: Path, environment: Mapping[str, str]) -> list[str]:
    """Run host.sh up to the check's first step, and return what is wrong."""
    steps = ["--steps", "first", "--models", MINILM.name, "--tokens", "20000", "--texts", "4"]
    steps += ["--keep", str(folder / "kept.md")]
    command = [
        "bash",
        "benchmarks/gpu/host.sh",
        str(folder / "pieces"),
        str(folder / "out"),
        *steps,
    ]
    print(run(command, environment))
    doctor = (folder / "out/doctor.txt").read_text()
    problems = [] if "FAIL" not in doctor else ["doctor found something wrong"]
    if f"{folder}/layer/nvidia/cu13/lib" not in doctor:
        problems.append("doctor did not find CUDA's libraries in their folder")
    lines = [json.loads(line) for line in (folder / "out/results.jsonl").read_text().splitlines()]
    ended = {line["what"]: line for line in lines if "begins" not in line}
    wanted = ("open", "parity", "latency", "speed 16384", "open plain", "latency plain")
    failed = {what: ended.get(what, {"error": "not measured"}).get("error") for what in wanted}
    problems += [f"{what}: {error}" for what, error in failed.items() if error]
    # There is no torch on this host, and a failure must not end the step.
    if "error" not in ended.get("peak", {"error": ""}):
        problems.append("a peak was measured without a card")
    return problems


def check_server(folder: Path, host: Path, environment: Mapping[str, str]) -> list[str]:
    """Start a server with an HTTP process and an engine process, ask for a vector, and return what is wrong."""
    model = write_model(MINILM, folder / "model")
    server = Server(
        "nestvec",
        [str(host), "-m", "nestvec", "serve", "--model", str(model), "--port", "{port}"],
        health="/health/ready",
        env={
            **environment,
            "PYTHONPATH": f"{folder}/work/site:{ROOT}/app:{folder}/patches",
            "NESTVEC_CACHE_DIR": f"{folder}/cache",
            "NESTVEC_DATA_DIR": f"{folder}/data",
            "NESTVEC_PROVIDER": "cuda",
            "NESTVEC_HTTP_PROCESSES": "1",
            "NESTVEC_OFFLINE": "true",
        },
        log=folder / "server.log",
    )
    try:
        server.start()
        body = {"input": "w5 w6 w7"}
        answer = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60, trust_env=False)
        print("POST /v1/embeddings", answer.status_code, answer.text[:120], "…")
        vector = answer.json()["data"][0]["embedding"]
    finally:
        server.stop()
    return [] if len(vector) == MINILM.hidden and all(vector) else ["the answer is no vector"]


def main() -> int:
    """Rehearse, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="the interpreter below the host's")
    parser.add_argument("--folder", type=Path, default=None, help="kept, where it is given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (arguments.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        host, version = make_host(arguments.python, folder)
        bundle = ["--python", version, "--host-has", ",".join(HOST_HAS), "--level", "0"]
        print(run([sys.executable, "-m", "benchmarks.gpu.bundle", str(folder / "pieces"), *bundle]))
        library = build_library(folder)
        (folder / "patches").mkdir()
        (folder / "patches/sitecustomize.py").write_text(PATCHES)
        environment = {
            **os.environ,
            **NO_NETWORK,
            "PATH": f"{host.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "patches"),
            "WORK": str(folder / "work"),
            "LD_PRELOAD": str(library),
            "LD_LIBRARY_PATH": str(library.parent),
            LIBRARY: str(library),
        }
        problems = check_first_step(folder, environment)
        try:
            problems += check_server(folder, host, environment)
        except SystemExit as error:
            problems.append(f"{error}\n{(folder / 'server.log').read_text()[-2000:]}")
    print("\n".join(problems) or "the host's environment works")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
