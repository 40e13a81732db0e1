"""A run's manifest: what it says, whose signature it bears, and what `nestvec verify` finds."""

import base64
import contextlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from nestvec.cli import group
from nestvec.corpus.manifest import canonical, digest_rows, has_small_order, read_public_key
from nestvec.corpus.store_writer import StoredRow
from nestvec.errors import FormatError

from tests.support.tiny import write_tiny_bert


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a model, texts and two keys."""
    monkeypatch.setenv("NESTVEC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_tiny_bert(tmp_path / "model")
    (tmp_path / "in.jsonl").write_text(
        '{"id": "a", "text": "alpha"}\n{"id": "b", "text": "beta"}\n'
    )
    for name in ("key", "other"):
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(private)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{name}.pub").write_bytes(public)
    return tmp_path


def run(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(group, arguments)


def embed(*more: str) -> Result:
    """Embed the texts with a manifest."""
    result = run(
        *("embed", "in.jsonl", "out.npy", "--model", "model", "--log-level", "warning"),
        *("--manifest", "run.json", *more),
    )
    assert result.exit_code == 0, result.output
    return result


def refusal(*arguments: str) -> str:
    """Return why a manifest is refused."""
    result = run("verify", "run.json", *arguments)
    assert isinstance(result.exception, FormatError), result.output
    return str(result.exception)


def test_a_signed_run_is_verified(workplace: Path) -> None:
    """Who has the public key sees who vouches; whatever was changed since is told, whichever part it is."""
    embed("--sign-key", "key.pem")
    said = json.loads((workplace / "run.json").read_text())
    assert said["vectors"]["space"]
    assert float(said["vectors"]["max_difference"]) == 1e-4
    assert said["counts"]["texts"] == 2
    assert [entry["path"] for entry in said["sources"]] == ["in.jsonl"]
    assert [entry["path"] for entry in said["files"]] == ["out.npy", "out.ids.txt", "out.meta.json"]
    good = run("verify", "run.json", "--public-key", "key.pub")
    assert good.exit_code == 0, good.output
    assert "signature: good, by key.pub" in good.output
    assert "which is not known to be anybody's" in run("verify", "run.json").output
    assert "signed by another key" in refusal("--public-key", "other.pub")
    for key, value in (("counts", {"texts": 3}), ("target", "elsewhere.npy"), ("more", 1)):
        (workplace / "run.json").write_text(json.dumps({**said, key: value}))
        assert "not that of this manifest" in refusal("--public-key", "key.pub")
    for field, value in (("value", "AAAA"), ("public_key", "no base64"), ("algorithm", "none")):
        forged = {**said["signature"], field: value}
        (workplace / "run.json").write_text(json.dumps({**said, "signature": forged}))
        assert "signature is not" in refusal()
    (workplace / "run.json").write_text(
        json.dumps({key: value for key, value in said.items() if key != "signature"})
    )
    assert refusal("--public-key", "key.pub") == "the manifest is not signed"


# The y of the points of small order as RFC 8032 writes them: the multiples by the group's order of any points.
SMALL_ORDER = (
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
)
# Beyond the prime: 0 and 1 once more.
NOT_CANONICAL = ("ed" + "ff" * 30 + "7f", "ee" + "ff" * 30 + "7f")
# R is the neutral element and S is 0: what anybody can write.
FORGED = bytes([1]) + bytes(63)


@pytest.mark.parametrize("key", [*SMALL_ORDER, *NOT_CANONICAL])
def test_a_key_that_anybody_can_sign_by_vouches_for_nothing(tmp_path: Path, key: str) -> None:
    """A key of small order is refused, beside a forged signature that holds by it and as a file."""
    raw = bytearray.fromhex(key)
    file = tmp_path / "run.json"
    for sign_of_x in (0, 0x80):
        raw[31] ^= sign_of_x
        assert has_small_order(bytes(raw))
        for attempt in range(200):  # one in eight holds
            forged = {"format": "nestvec-run/1", "attempt": attempt}
            with contextlib.suppress(InvalidSignature, ValueError):
                Ed25519PublicKey.from_public_bytes(bytes(raw)).verify(FORGED, canonical(forged))
                break
        else:
            continue  # the library takes no such encoding
        signature = {
            "algorithm": "ed25519",
            "public_key": base64.b64encode(raw).decode(),
            "value": base64.b64encode(FORGED).decode(),
        }
        file.write_text(json.dumps({**forged, "signature": signature}))
        assert "small order" in str(run("verify", str(file)).exception)
        public = Ed25519PublicKey.from_public_bytes(bytes(raw))
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / "small.pub").write_bytes(pem)
        with pytest.raises(FormatError, match="small order"):
            read_public_key(tmp_path / "small.pub")


def test_changed_inputs_and_outputs_are_told(workplace: Path) -> None:
    """Each file that is not as it was is named; inputs may be left out."""
    embed()
    assert "signature: none" in run("verify", "run.json").output
    (workplace / "in.jsonl").write_text('{"id": "a", "text": "gamma"}\n')
    assert "in.jsonl: has changed" in refusal()
    assert run("verify", "run.json", "--skip-sources").exit_code == 0
    moved = workplace / "moved"
    moved.mkdir()
    for name in ("out.npy", "out.ids.txt", "out.meta.json"):
        (workplace / name).rename(moved / name)
    assert "'out.npy': no such file" in refusal("--skip-sources")
    assert run("verify", "run.json", "--skip-sources", "--target", "moved/out.npy").exit_code == 0
    matrix = bytearray((moved / "out.npy").read_bytes())
    matrix[-1] ^= 1
    (moved / "out.npy").write_bytes(matrix)
    assert "out.npy: has changed" in refusal("--skip-sources", "--target", "moved/out.npy")


def test_what_is_no_key_is_refused_before_any_work(workplace: Path) -> None:
    """A public key, another kind of key, and a key without a manifest are refused at once."""
    command = ("embed", "in.jsonl", "out.npy", "--model", "no-such-model")
    result = run(*command, "--manifest", "run.json", "--sign-key", "key.pub")
    assert "no private key in PEM" in str(result.exception)
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "x25519", "-out", "x.pem"], check=True, cwd=workplace
    )
    result = run(*command, "--manifest", "run.json", "--sign-key", "x.pem")
    assert "no Ed25519 key" in str(result.exception)
    assert "--manifest" in run(*command, "--sign-key", "key.pem").output


@pytest.mark.parametrize(
    "said",
    [
        [],
        {},
        {"format": "nestvec-run/2"},
        {"format": "nestvec-run/1", "signature": 1},
        {"format": "nestvec-run/1", "sources": {}},
        {"format": "nestvec-run/1", "sources": [1]},
        {"format": "nestvec-run/1", "files": [{"path": 1}]},
        {"format": "nestvec-run/1", "content": 1, "target": "x"},
    ],
)
def test_what_is_no_manifest_is_refused(workplace: Path, said: Any) -> None:
    """Whatever JSON a file holds, it is refused in words."""
    (workplace / "run.json").write_text(json.dumps(said))
    assert refusal()


def test_rows_have_one_digest_in_any_order() -> None:
    """The digest of a store's rows depends on documents, hashes and numbers, and not on their order."""
    rows = [StoredRow("a", "1", 2), StoredRow("a", "1", 2), StoredRow("b", "2", 1)]
    whole = digest_rows(rows)
    assert whole["rows"] == 3
    assert digest_rows(rows[::-1]) == whole
    others: Sequence[list[StoredRow]] = (
        rows[1:],
        [*rows, rows[0]],
        [rows[0], rows[1], StoredRow("b", "2", 2)],
        [rows[0], rows[1], StoredRow("b2", "", 1)],
    )
    assert all(digest_rows(other) != whole for other in others)
    assert canonical({"b": "\u00e9", "a": [1]}) == '{"a":[1],"b":"\u00e9"}'.encode()
