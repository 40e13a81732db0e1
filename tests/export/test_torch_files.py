"""Files as torch writes them: read to the bit, mapped, and never run, whatever they hold."""

import json
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.errors import FormatError
from nestvec.export.graph.tensor_files import TorchCheckpoint, open_tensors
from nestvec.export.graph.torch_pickle import read_state
from nestvec.export.graph.weights import Weights, weight_files
from safetensors.numpy import save_file
from typing_extensions import override

from tests.export.torch_files.values import base_values, expected
from tests.support.torch_files import (
    MAPPING,
    START,
    TENSOR,
    archive,
    int_op,
    save_torch,
    state_pickle,
    storage_op,
    tensor_op,
    text_op,
    torch_bytes,
    tuple_op,
)

HERE = Path(__file__).parent / "torch_files"
ARRAY = storage_op("0", "float32", 6)
VALUES = np.arange(6, dtype=np.float32).tobytes()


class Touch:
    """An object whose pickle calls a function of the system when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @override
    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Have the folder made."""
        return (os.mkdir, (str(self.path),))


def one_tensor(tensor: bytes) -> bytes:
    """The pickle of a state with one tensor, `w`."""
    return state_pickle({"w": tensor})


def test_what_torch_wrote_is_read_to_the_bit() -> None:
    """Every dtype, views, shared arrays and parameters come back as they were."""
    file = open_tensors(HERE / "state.bin")
    wanted = expected()
    assert list(file.names()) == list(wanted)
    for name, values in wanted.items():
        found = file.read(name)
        assert (
            (found.dtype, found.shape)
            == (values.dtype, values.shape)
            == (values.dtype, file.shape(name))
        )
        np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(file.read_row("transposed", 3), wanted["transposed"][3])


def test_tensors_are_views_of_the_mapped_file() -> None:
    """Nothing is copied before it is used: shared arrays stay shared, and nobody can write to them."""
    file = open_tensors(HERE / "state.bin")
    assert np.shares_memory(file.read("base"), file.read("part"))
    assert np.shares_memory(file.read("base"), file.read("base"))
    assert not file.read("base").flags.writeable


def test_other_files_of_torch_are_refused_with_the_way_out() -> None:
    """The format before 1.6, whole modules and pointers are named."""
    for name, named in (
        (
            "before_1_6.bin",
            "since version 1.6, and older ones are not read; write it as safetensors",
        ),
        ("module.bin", "torch.nn.modules.linear.Linear"),
    ):
        with pytest.raises(FormatError, match=named):
            open_tensors(HERE / name)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_no_code_runs(tmp_path: Path, protocol: int) -> None:
    """A pickle that would make a folder makes none, in any protocol and at any place."""
    canary = tmp_path / "ran"
    hostile = pickle.dumps(Touch(canary), protocol=protocol)
    body = hostile[2:-1] if protocol >= 2 else hostile[:-1]
    inside = START + MAPPING + b"(" + text_op("w") + body + b"u."
    for content in (hostile, START + body + b".", inside):
        with pytest.raises(FormatError, match=r"data\.pkl"):
            read_state(content)
        path = tmp_path / "pytorch_model.bin"
        path.write_bytes(archive(content, {"0": VALUES}))
        with pytest.raises(FormatError, match=r"pytorch_model\.bin: data\.pkl"):
            open_tensors(path)
    assert not canary.exists()
    pickle.loads(hostile)  # noqa: S301 - that is what would have happened
    assert canary.exists()


HOSTILE: dict[str, tuple[bytes, str]] = {
    "system": (START + b"cposix\nsystem\n" + tuple_op(text_op("true")) + b"R.", "posix.system"),
    "eval": (START + b"cbuiltins\neval\n" + tuple_op(text_op("1")) + b"R.", "builtins.eval"),
    "attribute": (
        START + b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
        "_rebuild_tensor_v2",
    ),
    "object": (START + b"(" + b"ios\nsystem\n" + b".", "INST"),
    "new object": (START + MAPPING + b")\x81.", "NEWOBJ"),
    "extension": (START + b"\x82\x01.", "EXT1"),
    "call of a dtype": (START + b"ctorch\nFloatStorage\n" + int_op(9) + b"\x85R.", "FloatStorage"),
    "call of a tensor": (one_tensor(tensor_op(ARRAY, (2, 3), (3, 1)) + b")R"), "damaged"),
    "mapping of pairs": (
        START + b"ccollections\nOrderedDict\n" + tuple_op(b"]") + b"R.",
        "OrderedDict",
    ),
    "memo of 2**31": (START + b"Nr\xff\xff\xff\x7f.", "no dictionary"),
    "bytes of 2**60": (START + b"\x96" + (2**60).to_bytes(8, "little") + b".", "damaged"),
    "number of 2**31 bytes": (START + b"\x8b\xff\xff\xff\x7f.", "damaged"),
    "text of 2**32 bytes": (START + b"X\xff\xff\xff\xff.", "damaged"),
    "nested tuples": (START + b"})" + b"\x85" * 100_000 + b"Ns.", "nests tuples"),
    "wide tuple": (START + b"(" + b"N" * 17 + b"t.", "tuple of 17"),
    "list in itself": (START + b"]q\x00h\x00a.", "no dictionary"),
    "mapping in itself": (START + b"}q\x00" + text_op("w") + b"h\x00s.", "'w' is no tensor"),
    "mark as a value": (START + b"((\x85.", "damaged"),
    "key of a tuple": (START + b"})Ns.", "damaged"),
    "odd items": (START + b"}(N" + b"u.", "damaged"),
    "two values": (START + b"NN.", "not one value"),
    "empty stack": (START + b"R.", "damaged"),
    "no memo": (START + b"h\x07.", "damaged"),
    "other protocol": (b"\x80\x04}.", "protocol 4"),
    "no tensor": (START + b"}" + text_op("step") + int_op(7) + b"s.", "'step' is no tensor"),
    "long name": (START + b"}" + text_op("w" * 600) + b"Ns.", "600 characters"),
    "other reference": (START + tuple_op(b"NNNNN") + b"Q.", "damaged"),
    "reference of text": (START + text_op("0") + b"Q.", "damaged"),
    "negative size": (one_tensor(tensor_op(ARRAY, (-1, 3), (3, 1))), "damaged"),
    "negative stride": (one_tensor(tensor_op(ARRAY, (2, 3), (-3, 1))), "damaged"),
    "negative offset": (one_tensor(tensor_op(ARRAY, (2, 3), (3, 1), -1)), "damaged"),
    "offset beyond": (one_tensor(tensor_op(ARRAY, (2, 3), (3, 1), 1)), "does not lie"),
    "shape beyond": (one_tensor(tensor_op(ARRAY, (3, 3), (3, 1))), "does not lie"),
    "stride beyond": (one_tensor(tensor_op(ARRAY, (2, 3), (4, 1))), "does not lie"),
    "repeated": (one_tensor(tensor_op(ARRAY, (2**40, 6), (0, 1))), "does not lie"),
    "product of 2**80": (one_tensor(tensor_op(ARRAY, (2**40, 2**40), (0, 0))), "does not lie"),
    "strides missing": (one_tensor(tensor_op(ARRAY, (2, 3), (3,))), "damaged"),
    "few arguments": (START + TENSOR + tuple_op(ARRAY) + b"R.", "damaged"),
    "tensor of a tensor": (
        one_tensor(tensor_op(tensor_op(ARRAY, (6,), (1,)), (6,), (1,))),
        "damaged",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_and_take_no_memory(name: str) -> None:
    """None runs, recurses or grows; each is refused with what is wrong."""
    content, named = HOSTILE[name]
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=named):
            read_state(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**21


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """Of a good file no beginning is taken for a whole one."""
    whole = torch_bytes({"w": np.ones((2, 2), np.float32)})
    path = tmp_path / "pytorch_model.bin"
    for end in range(0, len(whole) - 1, 41):
        path.write_bytes(whole[:end])
        with pytest.raises(FormatError, match=r"pytorch_model\.bin"):
            open_tensors(path)
    good = one_tensor(tensor_op(ARRAY, (2, 3), (3, 1)))
    assert set(read_state(good)) == {"w"}
    for end in range(len(good) - 1):
        with pytest.raises(FormatError):
            read_state(good[:end])


def test_archives_that_lie_are_refused(tmp_path: Path) -> None:
    """Packed files, missing or short arrays, programs, foreign archives and pointers to them."""
    state = one_tensor(tensor_op(ARRAY, (2, 3), (3, 1)))
    long_pickle = START + b"N" * (17 * 2**20)
    whole = archive(state, {"0": VALUES})
    beyond = bytearray(whole)
    at = beyond.rfind(b"PK\x01\x02")  # the list's last entry: where its file begins
    beyond[at + 42 : at + 46] = (2**31).to_bytes(4, "little")
    cases = {
        "packed": archive(state, {"0": bytes(2**20)}, compression=zipfile.ZIP_DEFLATED),
        "no values": archive(state, {}),
        "has 20 bytes of values, not 24": archive(state, {"0": VALUES[:-4]}),
        "has 28 bytes of values, not 24": archive(state, {"0": VALUES + bytes(4)}),
        "TorchScript": archive(state, {"0": VALUES}, more={"constants.pkl": b""}),
        "the other way": archive(state, {"0": VALUES}, more={"byteorder": b"big"}),
        "max 16777216": archive(long_pickle, {}),
        "points beyond its end": bytes(beyond),
        "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "not an archive": b"",
    }
    for named, content in cases.items():
        path = tmp_path / "pytorch_model.bin"
        path.write_bytes(content)
        with pytest.raises(FormatError, match=named):
            open_tensors(path)


def test_the_list_of_an_archive_is_bounded(tmp_path: Path) -> None:
    """A list longer than any checkpoint's is refused before it is read."""
    path = tmp_path / "pytorch_model.bin"
    arrays = {f"{number:0>4096}": b"" for number in range(1100)}
    path.write_bytes(archive(one_tensor(tensor_op(ARRAY, (6,), (1,))), arrays))
    with pytest.raises(FormatError, match="list of files has over"):
        TorchCheckpoint(path)


def test_weights_are_read_from_shards_and_safetensors_go_first(tmp_path: Path) -> None:
    """An index of torch's own names its shards; where there are safetensors, nothing else is opened."""
    base = base_values()
    save_torch({"a": base}, tmp_path / "pytorch_model-00001-of-00002.bin")
    save_torch({"b": base.astype(np.float16)}, tmp_path / "pytorch_model-00002-of-00002.bin")
    index: dict[str, Any] = {"a": "pytorch_model-00001-of-00002.bin"}
    index["b"] = "pytorch_model-00002-of-00002.bin"
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    with Weights(tmp_path) as weights:
        np.testing.assert_array_equal(weights.get("a", (6, 8)), base)
        assert weights.get("b", (6, 8)).dtype == np.float32
        np.testing.assert_array_equal(weights.row("a", 4), base[4])
        with pytest.raises(FormatError, match="no row 6"):
            weights.row("a", 6)
    assert weight_files(tmp_path, reads_pickles=False) == ()
    save_file({"a": base}, tmp_path / "model.safetensors")
    assert [path.name for path in weight_files(tmp_path)] == ["model.safetensors"]
    with Weights(tmp_path) as weights:
        np.testing.assert_array_equal(weights.row("a", 4), base[4])
    (tmp_path / "model.safetensors").unlink()
    wrong = {"a": "pytorch_model-00001-of-00002.bin"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": wrong}))
    with pytest.raises(FormatError, match=r"no \.safetensors file"):
        weight_files(tmp_path, reads_pickles=False)
