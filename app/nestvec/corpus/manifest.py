"""A run's manifest: which inputs, model and settings gave which vectors, signed so that nobody can change it unseen.

A signature is Ed25519's (RFC 8032) over the manifest as canonical JSON: keys sorted, no spaces, UTF-8, without
`signature`. It says who vouches for the manifest; that the manifest is true is checked against what it names.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from nestvec import __version__
from nestvec.corpus.job import CorpusJob, CorpusSummary
from nestvec.corpus.store_writer import StoredRow
from nestvec.corpus.stores.common import public_address, require
from nestvec.errors import FormatError
from nestvec.system.durable_files import atomic_write
from nestvec.system.json_files import read_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORMAT: Final = "nestvec-run/1"
ALGORITHM: Final = "ed25519"
# What lies beside a file of vectors, by its ending.
SIDE_FILES: Final = (".ids.txt", ".rows.jsonl", ".meta.json")
READ_BYTES: Final = 1 << 20
DIGEST_BYTES: Final = 32
# The y of the eight points of small order of edwards25519 (RFC 8032): of order 1, 2, 4 and 8. Whoever signs by one of
# them needs no private key.
FIELD_PRIME: Final = 2**255 - 19
ORDER_8_Y: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER_Y: Final = frozenset({1, FIELD_PRIME - 1, 0, ORDER_8_Y, FIELD_PRIME - ORDER_8_Y})


def describe_run(
    target: str,
    job: CorpusJob,
    summary: CorpusSummary,
    rows: Iterable[StoredRow] | None,
) -> dict[str, Any]:
    """Return a run's manifest, unsigned.

    Args:
        target: A path or an address; a password in it is left out.
        job: What was embedded.
        summary: What came of it.
        rows: Every row of the store; None where the target is a file.

    Raises:
        OSError: A source or a file of the target cannot be read.
    """
    sources = [describe_file(source.path) for source in job.sources if not source.is_stdin]
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "nestvec": __version__,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": public_address(target),
        "vectors": {
            key.removeprefix("nestvec."): value for key, value in sorted(summary.metadata.items())
        },
        "settings": {
            **asdict(job.options),
            "id": job.id_kind,
            "columns": asdict(job.columns),
            "with_text": job.with_text,
            "chunking": None if job.chunking is None else asdict(job.chunking),
        },
        "sources": sources,
        "sources_sha256": hashlib.sha256(canonical(sources)).hexdigest(),
        "reads_stdin": len(sources) < len(job.sources),
        "counts": {
            "texts": summary.texts,
            "vectors_made": summary.rows,
            "unchanged": summary.unchanged,
            "tokens": summary.tokens,
            "truncated": summary.truncated,
        },
    }
    if rows is not None:
        manifest["content"] = digest_rows(rows)
    if (path := Path(target)).is_file():
        manifest["files"] = [describe_file(file) for file in files_of(path)]
    return manifest


def files_of(path: Path) -> list[Path]:
    """Return a file of vectors and what lies beside it."""
    beside = [path.with_suffix(ending) for ending in SIDE_FILES]
    return [path, *(file for file in beside if file.is_file())]


def describe_file(path: Path) -> dict[str, Any]:
    """Return a file's path as it was given, its size in bytes and its SHA-256.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
            size += len(block)
    return {"path": path.as_posix(), "bytes": size, "sha256": digest.hexdigest()}


def digest_rows(rows: Iterable[StoredRow]) -> dict[str, Any]:
    """Return the number of a store's rows and a digest of their documents and content hashes, in whatever order.

    The digest is the sum of the rows' SHA-256 modulo 2^256: it tells that a store holds these rows, not that nobody
    chose others of the same sum on purpose.
    """
    count, total = 0, 0
    for row in rows:
        count += 1
        text = json.dumps([row.document, row.content_hash, row.chunks])
        total += int.from_bytes(hashlib.sha256(text.encode()).digest())
    total %= 1 << (8 * DIGEST_BYTES)
    return {"rows": count, "sha256_sum": total.to_bytes(DIGEST_BYTES).hex()}


def canonical(value: Any) -> bytes:  # noqa: ANN401 - of any JSON
    """Return a value as JSON that is the same bytes wherever it is written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def write_manifest(
    path: Path, manifest: Mapping[str, Any], key: "Ed25519PrivateKey | None"
) -> None:
    """Write a manifest, with a signature where there is a key.

    Raises:
        OSError: The file cannot be written.
    """
    whole = dict(manifest)
    if key is not None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        whole["signature"] = {
            "algorithm": ALGORITHM,
            "public_key": base64.b64encode(public).decode(),
            "value": base64.b64encode(key.sign(canonical(manifest))).decode(),
        }
    with atomic_write(path) as file:
        file.write(json.dumps(whole, indent=1, ensure_ascii=False).encode() + b"\n")


def read_sign_key(path: Path) -> "Ed25519PrivateKey":
    """Read a private key, PEM as `openssl genpkey -algorithm ed25519` writes it.

    Raises:
        FormatError: It is none, it asks for a password, or the package for it is missing.
    """
    serialization = require("cryptography.hazmat.primitives.serialization", "sign")
    kinds = require("cryptography.hazmat.primitives.asymmetric.ed25519", "sign")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, OSError) as error:
        raise FormatError(f"{path}: no private key in PEM without a password") from error
    if not isinstance(key, kinds.Ed25519PrivateKey):
        raise FormatError(f"{path}: no Ed25519 key; openssl genpkey -algorithm ed25519 makes one")
    return cast("Ed25519PrivateKey", key)


def read_public_key(path: Path) -> bytes:
    """Read a public key, PEM as `openssl pkey -pubout` writes it; returns its 32 bytes.

    Raises:
        FormatError: It is none, one of small order, or the package for it is missing.
    """
    serialization = require("cryptography.hazmat.primitives.serialization", "sign")
    kinds = require("cryptography.hazmat.primitives.asymmetric.ed25519", "sign")
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (ValueError, TypeError, OSError) as error:
        raise FormatError(f"{path}: no public key in PEM") from error
    if not isinstance(key, kinds.Ed25519PublicKey):
        raise FormatError(f"{path}: no Ed25519 key")
    raw: bytes = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    if has_small_order(raw):
        raise FormatError(f"{path}: a key of small order, under which anybody can sign")
    return raw


def has_small_order(public_key: bytes) -> bool:
    """Whether an Ed25519 key of 32 bytes is a point of small order, in whatever encoding.

    Such a key, as one of zeros, holds for signatures that anybody can make.
    """
    # The highest bit is the sign of x; a y beyond the prime is taken modulo it by those that verify.
    y = int.from_bytes(public_key, "little") & ((1 << 255) - 1)
    return y % FIELD_PRIME in SMALL_ORDER_Y


def read_manifest(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Read a manifest; returns it without its signature, and the signature.

    Raises:
        FormatError: It is none, or one of another version.
    """
    manifest = read_json(path)
    if manifest.get("format") != FORMAT:
        raise FormatError(f"{path}: no manifest of '{FORMAT}'")
    signature = manifest.pop("signature", None)
    if signature is not None and not isinstance(signature, dict):
        raise FormatError(f"{path}: its signature is no object")
    return manifest, signature


def check_signature(manifest: Mapping[str, Any], signature: Mapping[str, Any]) -> bytes:
    """Check a signature by the public key that stands beside it; returns that key.

    Raises:
        FormatError: It is of another kind, it is not this manifest's, anybody can sign by its key, or the package for
            it is missing.
    """
    kinds = require("cryptography.hazmat.primitives.asymmetric.ed25519", "sign")
    errors = require("cryptography.exceptions", "sign")
    if signature.get("algorithm") != ALGORITHM:
        raise FormatError(f"the signature is not of {ALGORITHM}")
    try:
        public = base64.b64decode(str(signature.get("public_key")), validate=True)
        value = base64.b64decode(str(signature.get("value")), validate=True)
        kinds.Ed25519PublicKey.from_public_bytes(public).verify(value, canonical(manifest))
    except (ValueError, errors.InvalidSignature) as error:
        raise FormatError("the signature is not that of this manifest") from error
    if has_small_order(public):
        raise FormatError("the signature is by a key of small order, under which anybody can sign")
    return public


def changed_files(described: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
    """Return what has become of files that a manifest names: a line for each that is not as it was.

    Raises:
        FormatError: The manifest does not name files as it should.
    """
    lines = []
    for entry in described:
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise FormatError("the manifest names a file without a path")
        path = folder / entry["path"]
        try:
            # A device would never end.
            if not path.is_file():
                lines.append(f"{entry['path']!r}: no such file")
            elif path.stat().st_size != entry.get("bytes") or (
                describe_file(path)["sha256"] != entry.get("sha256")
            ):
                lines.append(f"{entry['path']}: has changed")
        except (OSError, ValueError) as error:  # the name may be none that a file can have
            lines.append(f"{entry['path']!r}: cannot be read ({error})")
    return lines
