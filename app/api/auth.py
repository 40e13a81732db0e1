"""API keys: constant-time comparison of digests; no key is kept in clear or logged."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from starlette.datastructures import Headers

from app.errors import AccessError

KEY_ID_BYTES = 6  # enough to tell keys apart in metrics and logs


class Authenticator:
    """Checks the key of a request against those configured.

    Args:
        keys: Accepted keys; none means that every caller is let in.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        # Keyed with a secret of this process, so that digests in a core dump are of no use elsewhere.
        self._salt = secrets.token_bytes(32)
        self._digests = [self._digest(key.encode()) for key in keys]
        self._ids = [
            hashlib.blake2b(key.encode(), digest_size=KEY_ID_BYTES).hexdigest() for key in keys
        ]

    @property
    def is_open(self) -> bool:
        """Whether every caller is let in."""
        return not self._digests

    def check(self, headers: Headers) -> str:
        """Let a caller in.

        Args:
            headers: `Authorization: Bearer`, `api-key` or `x-api-key` carry the key.

        Returns:
            The key's id, "" where no key is configured.

        Raises:
            AccessError: No key, or a wrong one.
        """
        if self.is_open:
            return ""
        given = _given_key(headers)
        if not given:
            raise AccessError(
                "You didn't provide an API key. Send it as 'Authorization: Bearer KEY'.",
                code="missing_api_key",
            )
        # Header values arrive decoded as Latin-1; this gives back the bytes that were sent.
        digest = self._digest(given.encode("latin-1", "replace"))
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            raise AccessError("Incorrect API key provided.")
        return self._ids[matches.index(True)]

    def _digest(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, key=self._salt).digest()


def _given_key(headers: Headers) -> str:
    """The key a request carries, "" for none; the scheme word is matched in any case."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return headers.get("api-key", "") or headers.get("x-api-key", "")
