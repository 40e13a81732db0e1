"""The file of keys: digests of secrets, and what each key may do. The secrets themselves are stored nowhere.

A key reads `nv_<id>_<secret>`. The id is public (metrics, logs, usage); the secret has 256 random bits, so one pass of
salted BLAKE2b is as good as a slow hash would be: there is nothing to guess.
"""

import errno
import fcntl
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

import orjson

from nestvec.errors import ConfigError
from nestvec.keys.file_rows import VERSION, KeyFileError, KeyRow, LimitsRow, parse_rows
from nestvec.system.durable_files import atomic_write
from nestvec.system.private_files import open_private

PREFIX: Final = "nv"
ID_BYTES: Final = 6
SECRET_BYTES: Final = 32
SALT_BYTES: Final = 16
# What a write fails with where the disk, or the user's share of it, is full.
FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may do; None means no limit. Its fields are keys of the file.

    Attributes:
        models: Names of the models that the key may use; empty for all.
        requests_per_s: Average rate; a burst may be of one second's requests.
        tokens_per_min: Average rate; a burst may be of one minute's tokens.
        monthly_tokens: Tokens in a calendar month, UTC.
        is_bulk_only: Whether its requests never pass bulk ones.
    """

    models: tuple[str, ...] = ()
    requests_per_s: float | None = None
    tokens_per_min: int | None = None
    monthly_tokens: int | None = None
    is_bulk_only: bool = False


UNLIMITED: Final = KeyLimits()


def _digest(secret: str, salt: bytes) -> str:
    return hashlib.blake2b(secret.encode("utf-8", "replace"), salt=salt, digest_size=32).hexdigest()


@dataclass(frozen=True, slots=True)
class HashedSecret:
    """A secret as the file has it. Its fields are keys of the file.

    Attributes:
        salt: Salt of the digest, in hexadecimal.
        digest: Salted BLAKE2b of the secret, in hexadecimal.
        until_s: Unix time at which the secret expires; None for never.
    """

    salt: str
    digest: str
    until_s: float | None = None

    @classmethod
    def of(cls, secret: str) -> "HashedSecret":
        """Hash a secret with a new salt."""
        salt = secrets.token_bytes(SALT_BYTES)
        return cls(salt.hex(), _digest(secret, salt))

    def matches(self, secret: str, now_s: float) -> bool:
        """Whether a secret is this one and has not expired; takes the same time for any secret."""
        digest = _digest(secret, bytes.fromhex(self.salt))
        is_same = hmac.compare_digest(digest, self.digest)
        return is_same and (self.until_s is None or now_s < self.until_s)


# What a secret is compared with where the id of its key is unknown, so that the refusal takes no less time.
DUMMY_SECRET: Final = HashedSecret.of(secrets.token_urlsafe(SECRET_BYTES))


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key. Its fields are keys of the file.

    Attributes:
        id: Public id, as in metrics and logs.
        name: Name for people; need not be unique.
        created_s: Unix time at which it was made.
        secrets: Its secrets; more than one while a rotation lasts.
        limits: What it may do.
        revoked_s: Unix time at which it was revoked; None where it was not.
        is_admin: Whether it may use the routes for operators, beside those that `limits` is about.
    """

    id: str
    name: str
    created_s: float
    secrets: tuple[HashedSecret, ...]
    limits: KeyLimits = UNLIMITED
    revoked_s: float | None = None
    is_admin: bool = False

    def matches(self, secret: str, now_s: float) -> bool:
        """Whether a secret is one of this key's, and the key was not revoked."""
        # All are compared, whichever it is, so that the time taken tells nothing.
        matches = [known.matches(secret, now_s) for known in self.secrets]
        return any(matches) and self.revoked_s is None


@dataclass(slots=True)
class KeyFile:
    """All keys of a server.

    Attributes:
        path: Path of the file, which only its owner may read.
        records: The keys by their ids.
    """

    path: Path
    records: dict[str, KeyRecord] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "KeyFile":
        """Read the file as it is now; a file that does not exist has no keys.

        Raises:
            ConfigError: The file cannot be read, or is no file of keys.
        """
        try:
            return cls(path, {row.id: _record(row) for row in parse_rows(path.read_bytes())})
        except FileNotFoundError:
            return cls(path)
        except OSError as error:
            raise ConfigError([f"keys_file: {path} cannot be read ({error.strerror})"]) from error
        except KeyFileError as error:
            raise ConfigError(
                [f"keys_file: {path}: {problem}" for problem in error.problems]
            ) from error

    def write(self) -> None:
        """Replace the file, whole or not at all.

        On a full disk it is written over in place, where it fits into the room that it has: a key must be revocable
        then, too.

        Raises:
            ConfigError: The file cannot be written.
        """
        rows = [asdict(record) for record in self.records.values()]
        content = {"version": VERSION, "keys": rows}
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with atomic_write(self.path, mode=0o600) as file:
                    file.write(orjson.dumps(content, option=orjson.OPT_INDENT_2))
            except OSError as error:
                if error.errno not in FULL:
                    raise
                _write_over(self.path, orjson.dumps(content), error)
        except OSError as error:
            raise ConfigError(
                [f"keys_file: {self.path} cannot be written ({error.strerror})"]
            ) from error

    def add(self, name: str, limits: KeyLimits, *, is_admin: bool = False) -> tuple[KeyRecord, str]:
        """Make a key.

        Args:
            name: Its name for people.
            limits: What it may do.
            is_admin: Whether it may use the routes for operators.

        Returns:
            Its record, and the key itself, which is told this once.
        """
        key_id = secrets.token_hex(ID_BYTES)
        secret = secrets.token_urlsafe(SECRET_BYTES)
        hashed = (HashedSecret.of(secret),)
        record = KeyRecord(key_id, name, time.time(), hashed, limits, is_admin=is_admin)
        self.records[key_id] = record
        return record, f"{PREFIX}_{key_id}_{secret}"

    def rotate(self, key_id: str, overlap_s: float) -> tuple[KeyRecord, str]:
        """Give a key a new secret; its old ones stay good for a while.

        Args:
            key_id: Id of the key, or a name that only one has.
            overlap_s: How long the old secrets stay good.

        Returns:
            The key's record, and the key with the new secret, which is told this once.

        Raises:
            ConfigError: There is no such key, or it was revoked.
        """
        old, now_s = self.find(key_id), time.time()
        if old.revoked_s is not None:
            raise ConfigError([f"{key_id} was revoked: add a new key"])
        end_s = now_s + overlap_s
        old_secrets = [
            replace(known, until_s=min(known.until_s or end_s, end_s))
            for known in old.secrets
            if known.until_s is None or known.until_s > now_s
        ]
        secret = secrets.token_urlsafe(SECRET_BYTES)
        record = replace(old, secrets=(HashedSecret.of(secret), *old_secrets))
        self.records[old.id] = record
        return record, f"{PREFIX}_{old.id}_{secret}"

    def revoke(self, key_id: str) -> KeyRecord:
        """Revoke a key; one that was revoked already stays so since then.

        Args:
            key_id: Id of the key, or a name that only one has.

        Raises:
            ConfigError: There is no such key.
        """
        old = self.find(key_id)
        record = replace(old, revoked_s=old.revoked_s or time.time())
        self.records[record.id] = record
        return record

    def find(self, id_or_name: str) -> KeyRecord:
        """Find a key by its id, or by a name that only one has.

        Raises:
            ConfigError: There is no such key.
        """
        if id_or_name in self.records:
            return self.records[id_or_name]
        named = [record for record in self.records.values() if record.name == id_or_name]
        if len(named) != 1:
            several = "several keys have" if named else "no key has"
            raise ConfigError([f"{several} the id or name '{id_or_name}'; see: nestvec keys list"])
        return named[0]


@contextmanager
def edit_key_file(path: Path) -> Iterator[KeyFile]:
    """Read the file for a block that changes it, and write it at the end; nobody else can change it meanwhile.

    Raises:
        ConfigError: The file cannot be read or written, or is no file of keys.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open_private(path.with_name(f".{path.name}.lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            file = KeyFile.read(path)
            yield file
            file.write()
    except OSError as error:
        raise ConfigError([f"keys_file: {path} cannot be written ({error.strerror})"]) from error


def _write_over(path: Path, content: bytes, full: OSError) -> None:
    """Write over a file in place, without taking any more of a disk that is full.

    The content has no indentation, which makes room for some more than the file held; spaces fill the rest. A crash in
    the middle leaves a damaged file, which lets nobody in.

    Raises:
        OSError: `full`, where the content does not fit, or another failure.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        size_bytes = os.fstat(descriptor).st_size
        if len(content) > size_bytes:
            raise full
        os.pwrite(descriptor, content.ljust(size_bytes), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def split_key(key: str) -> tuple[str, str]:
    """Split a key into its id and secret; ("", key) where it has another form than the keys of a file."""
    prefix, _, suffix = key.partition("_")
    key_id, _, secret = suffix.partition("_")
    return (key_id, secret) if prefix == PREFIX and secret else ("", key)


def _record(row: KeyRow) -> KeyRecord:
    """Make the record of a key that was checked."""
    limits = row.limits or LimitsRow()
    return KeyRecord(
        row.id,
        row.name,
        row.created_s,
        tuple(HashedSecret(secret.salt, secret.digest, secret.until_s) for secret in row.secrets),
        KeyLimits(**{**limits.model_dump(), "models": tuple(limits.models)}),
        row.revoked_s,
        row.is_admin,
    )
