"""The file of keys: digests of secrets, and what each key may do. The secrets themselves are nowhere.

A key reads `nv_<id>_<secret>`. The id is public (metrics, logs, usage); the secret has 256 random bits, so one pass of
salted BLAKE2b is as good as a slow hash would be: there is nothing to guess.
"""

import fcntl
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson

from nestvec.errors import ConfigError
from nestvec.system.durable_files import write_whole

PREFIX: Final = "nv"
ID_BYTES: Final = 6
SECRET_BYTES: Final = 32
SALT_BYTES: Final = 16
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may do; None is no limit.

    Attributes:
        models: Names of models; none: all.
        requests_per_s: On average; as many again in a burst.
        tokens_per_min: On average.
        monthly_tokens: In a calendar month, UTC.
        is_bulk_only: Its requests never pass bulk ones.
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
class Secret:
    """What a secret is known by.

    Attributes:
        until_s: Unix time at which it stops being good; None for never.
    """

    salt: str
    digest: str
    until_s: float | None = None

    @classmethod
    def of(cls, secret: str) -> "Secret":
        """A new salt, and the digest with it."""
        salt = secrets.token_bytes(SALT_BYTES)
        return cls(salt.hex(), _digest(secret, salt))

    def matches(self, secret: str, now_s: float) -> bool:
        """Whether a secret is this one, in constant time, and still good."""
        found = _digest(secret, bytes.fromhex(self.salt))
        is_same = hmac.compare_digest(found, self.digest)
        return is_same and (self.until_s is None or now_s < self.until_s)


# Compared with where an id is unknown, so that this takes no less time.
NOBODY: Final = Secret.of(secrets.token_urlsafe(SECRET_BYTES))


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key.

    Attributes:
        id: Public.
        name: For people.
        created_s: Unix time.
        secrets: More than one while a rotation lasts.
        revoked_s: Since when it is not good any more.
    """

    id: str
    name: str
    created_s: float
    secrets: tuple[Secret, ...]
    limits: KeyLimits = UNLIMITED
    revoked_s: float | None = None

    def matches(self, secret: str, now_s: float) -> bool:
        """Whether a secret is one of this key's."""
        found = [one.matches(secret, now_s) for one in self.secrets]  # all of them, whichever it is
        return any(found) and self.revoked_s is None


@dataclass(slots=True)
class KeyFile:
    """All keys of a server.

    Attributes:
        path: Of the file; readable by its owner only.
    """

    path: Path
    records: dict[str, KeyRecord] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "KeyFile":
        """The file as it is now; no keys where there is none.

        Raises:
            ConfigError: It cannot be read, or is no file of keys.
        """
        try:
            kept = orjson.loads(path.read_bytes())
            if kept["version"] != VERSION:
                raise ConfigError([f"keys_file: {path} was written by another version of nestvec"])
            records = [_record(row) for row in kept["keys"]]
        except FileNotFoundError:
            return cls(path)
        except OSError as error:
            raise ConfigError([f"keys_file: {path} cannot be read ({error.strerror})"]) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError([f"keys_file: {path} is no file of keys"]) from error
        return cls(path, {record.id: record for record in records})

    def write(self) -> None:
        """Replace the file, whole or not at all.

        Raises:
            ConfigError: It cannot be written.
        """
        rows = [asdict(record) for record in self.records.values()]
        content = orjson.dumps({"version": VERSION, "keys": rows}, option=orjson.OPT_INDENT_2)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, content)
        except OSError as error:
            raise ConfigError(
                [f"keys_file: {self.path} cannot be written ({error.strerror})"]
            ) from error

    def add(self, name: str, limits: KeyLimits) -> tuple[KeyRecord, str]:
        """A new key: its record, and the key itself, which is told this once."""
        number = secrets.token_hex(ID_BYTES)
        secret = secrets.token_urlsafe(SECRET_BYTES)
        record = KeyRecord(number, name, time.time(), (Secret.of(secret),), limits)
        self.records[number] = record
        return record, f"{PREFIX}_{number}_{secret}"

    def rotate(self, key_id: str, overlap_s: float) -> tuple[KeyRecord, str]:
        """A new secret for a key; the old one is good for a while.

        Raises:
            ConfigError: There is no such key, or it was revoked.
        """
        old, now_s = self.find(key_id), time.time()
        if old.revoked_s is not None:
            raise ConfigError([f"{key_id} was revoked: add a new key"])
        kept = [
            replace(one, until_s=min(one.until_s or now_s + overlap_s, now_s + overlap_s))
            for one in old.secrets
            if one.until_s is None or one.until_s > now_s
        ]
        secret = secrets.token_urlsafe(SECRET_BYTES)
        record = replace(old, secrets=(Secret.of(secret), *kept))
        self.records[old.id] = record
        return record, f"{PREFIX}_{old.id}_{secret}"

    def revoke(self, key_id: str) -> KeyRecord:
        """A key is not good any more.

        Raises:
            ConfigError: There is no such key.
        """
        found = self.find(key_id)
        record = replace(found, revoked_s=found.revoked_s or time.time())
        self.records[record.id] = record
        return record

    def find(self, wanted: str) -> KeyRecord:
        """A key by its id, or by a name that only one has.

        Raises:
            ConfigError: There is none.
        """
        if wanted in self.records:
            return self.records[wanted]
        named = [record for record in self.records.values() if record.name == wanted]
        if len(named) != 1:
            several = "several keys have" if named else "no key has"
            raise ConfigError([f"{several} the id or name '{wanted}'; see: nestvec keys list"])
        return named[0]


@contextmanager
def edited(path: Path) -> Iterator[KeyFile]:
    """The file, to be changed; written at the end of the block, which nobody else changes it meanwhile.

    Raises:
        ConfigError: It cannot be read or written, or is no file of keys.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            file = KeyFile.read(path)
            yield file
            file.write()
    except OSError as error:
        raise ConfigError([f"keys_file: {path} cannot be written ({error.strerror})"]) from error


def split_key(given: str) -> tuple[str, str]:
    """A key's id and secret; ("", …) where it is none of the file's form."""
    prefix, _, rest = given.partition("_")
    number, _, secret = rest.partition("_")
    return (number, secret) if prefix == PREFIX and secret else ("", given)


def _record(row: dict[str, Any]) -> KeyRecord:
    limits = dict(row.get("limits") or {})
    limits["models"] = tuple(limits.get("models") or ())
    found: Sequence[Secret] = [Secret(**one) for one in row["secrets"]]
    return KeyRecord(
        id=str(row["id"]),
        name=str(row["name"]),
        created_s=float(row["created_s"]),
        secrets=tuple(found),
        limits=KeyLimits(**limits),
        revoked_s=row.get("revoked_s"),
    )
