"""Weights, of safetensors and of torch, and the adapters that change them."""

import io
import json
import random
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from nestvec.errors import NestvecError
from nestvec.export.graph.weights import Weights
from nestvec.model_store.sources.adapters import read_adapter

from tests.end_to_end.fuzz.mutate import as_json, half_and_half, mutated_bytes, mutated_json
from tests.end_to_end.fuzz.parsers.parser_target import ParserTarget, nothing, pristine_bert
from tests.support.torch_files import torch_bytes

TESTS = Path(__file__).parents[3]
ADAPTER = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["query", "value"],
    "bias": "none",
    "fan_in_fan_out": False,
}


def _write_weights(folder: Path, pristine: Path, chooser: random.Random) -> None:
    content = (pristine / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + length], content[8 + length :]
    if chooser.random() < 0.6:
        header = as_json(mutated_json(json.loads(header), chooser))
        size = chooser.choice((len(header), len(header), 0, 1, 2**63 - 1, len(content) * 2))
        content = struct.pack("<Q", size) + header + data[: chooser.choice((len(data), 10, 0))]
    else:
        content = mutated_bytes(content[: 8 + length + 256], chooser) + data[256:]
    (folder / "model.safetensors").write_bytes(content)
    if chooser.random() < 0.2:
        index = {"weight_map": {"a": "model.safetensors", "b": "../x.safetensors"}}
        (folder / "model.safetensors.index.json").write_bytes(
            half_and_half(as_json(index), chooser)
        )
    else:
        (folder / "model.safetensors.index.json").unlink(missing_ok=True)


def _read_weights(folder: Path) -> object:
    with Weights(folder) as weights:
        for name in weights.names():
            with suppress(NestvecError):
                weights.shape(name)
                weights.get(name, weights.shape(name))
        return weights.names()


def _torch_files(folder: Path) -> list[bytes]:
    """A checkpoint that torch wrote, and small ones, in which a mutation hits the pickle more often."""
    state = (TESTS / "export/torch_files/state.bin").read_bytes()
    small = torch_bytes({"w": np.ones((2, 2), np.float32), "v": np.ones(3, np.float16)})
    return [state, small, small]


def _write_torch_file(folder: Path, files: list[bytes], chooser: random.Random) -> None:
    content = chooser.choice(files)
    if chooser.random() < 0.5:
        content = mutated_bytes(content, chooser)
    else:
        # The pickle alone is changed, in an archive that is whole.
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            held = {name: packed.read(name) for name in packed.namelist()}
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as packed:
            for name, part in held.items():
                is_pickle = name.endswith("data.pkl")
                packed.writestr(name, mutated_bytes(part, chooser) if is_pickle else part)
        content = file.getvalue()
    (folder / "pytorch_model.bin").write_bytes(content)


def _write_adapter(folder: Path, _: None, chooser: random.Random) -> None:
    content = as_json(mutated_json(ADAPTER, chooser))
    (folder / "adapter_config.json").write_bytes(content)


TARGETS = {
    "safetensors": ParserTarget(pristine_bert, _write_weights, _read_weights),
    "torch checkpoint": ParserTarget(_torch_files, _write_torch_file, _read_weights),
    "adapter": ParserTarget(nothing, _write_adapter, read_adapter),
}
