"""Token arrays: which vocabulary they are in, and cl100k ids back to text.

langchain-openai tokenizes on the client with OpenAI's cl100k by default, and nothing in the request says so.
Feeding such ids to another model gives nonsense without an error, so the vocabulary is a setting.
"""

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from nestvec.errors import InputError
from nestvec.system.extras import how_to_install

CL100K: Final = "cl100k"
MODEL: Final = "model"
# https://github.com/openai/tiktoken, tiktoken_ext/openai_public.py: ranks end at 100255; specials follow.
FIRST_SPECIAL_ID: Final = 100_257
CL100K_IDS: Final = 100_277
TABLE_URL: Final = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
TABLE_SHA256: Final = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
# tiktoken downloads its table without a time limit of its own.
LOAD_TIMEOUT_S: Final = 10.0
RETRY_LOAD_S: Final = 60.0

Decode = Callable[[Sequence[int]], bytes]


class TokenDecoder:
    """Turns token arrays into what the engine takes.

    Args:
        mode: What ids are taken for where a caller does not say: "auto" or "cl100k" (OpenAI's), "model" (the model's
            own), or "reject".
        file: The cl100k table, for hosts where tiktoken cannot download it.
        is_offline: Whether the table may not be downloaded: without a file it is taken from tiktoken's cache, or not
            at all.
    """

    def __init__(self, mode: str, file: Path | None = None, *, is_offline: bool = False) -> None:
        self._mode = mode
        self._file = file
        self._is_offline = is_offline
        self._decode: Decode | None = None
        self._failed_at_s = -RETRY_LOAD_S
        self._reason = ""
        self._lock = asyncio.Lock()

    async def resolve(
        self, inputs: Sequence[Sequence[int]], *, vocabulary: str | None
    ) -> Sequence[str | Sequence[int]]:
        """Decode ids to text, or pass them through where they are the model's own.

        Args:
            inputs: Arrays of ids, each of at least one id.
            vocabulary: "model" or "cl100k" (`x-embed-token-vocab`), which overrides the setting; None: the setting.

        Raises:
            InputError: Token arrays are refused here, the table cannot be had, or an id is not cl100k's.
        """
        mode = vocabulary or self._mode
        if mode not in (CL100K, MODEL, "auto", "reject"):
            raise InputError("x-embed-token-vocab must be 'model' or 'cl100k'", param="input")
        if mode == MODEL:
            return inputs
        if mode == "reject":
            raise InputError(f"token arrays are not accepted here; {HOW_TO_AVOID}", param="input")
        decode = await self._table()
        # In a thread, as a request may hold 300,000 ids.
        return await asyncio.to_thread(_decode_all, decode, inputs)

    async def _table(self) -> Decode:
        """Return the decoder, loaded at first use.

        Raises:
            InputError: The table could not be loaded.
        """
        async with self._lock:
            await self._load_once()
        if self._decode is None:
            raise InputError(
                f"token arrays need the cl100k table, which could not be loaded ({self._reason}); "
                f"{HOW_TO_AVOID}. Operators: {how_to_install('cl100k')}, or set cl100k_file",
                param="input",
            )
        return self._decode

    async def _load_once(self) -> None:
        """Load the table in a thread; after a failure this is not tried again for a minute."""
        now_s = time.monotonic()
        if self._decode is not None or now_s - self._failed_at_s < RETRY_LOAD_S:
            return
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                self._decode = await asyncio.to_thread(
                    _load_table, self._file, is_offline=self._is_offline
                )
        except (ImportError, OSError, ValueError, TimeoutError) as error:
            # requests' errors, which tiktoken lets through, are OSErrors too.
            self._failed_at_s = now_s
            self._reason = type(error).__name__


HOW_TO_AVOID: Final = (
    "send text instead: with langchain-openai set check_embedding_ctx_length=False; ids of the model's own "
    "vocabulary need the header 'x-embed-token-vocab: model'"
)


def _load_table(file: Path | None, *, is_offline: bool) -> Decode:
    """Load the table from a file, or let tiktoken fetch it once into its cache.

    Raises:
        ImportError: tiktoken is not installed.
        OSError: There is no network, or it may not be used; or there is no such file.
        ValueError: The file is not the cl100k table.
    """
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    if file is None and is_offline:
        file = _cached_table()
    if file is None:
        return tiktoken.get_encoding("cl100k_base").decode_bytes
    ranks = load_tiktoken_bpe(str(file), expected_hash=TABLE_SHA256)
    pieces: Mapping[int, bytes] = {rank: piece for piece, rank in ranks.items()}
    return lambda ids: b"".join(pieces[i] for i in ids)


def _cached_table() -> Path:
    """Return the path of the table in tiktoken's cache.

    Raises:
        FileNotFoundError: It is not there.
    """
    # As tiktoken.load.read_file_cached finds it, which would download what is missing.
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    cache = Path(folder) if folder else Path(tempfile.gettempdir()) / "data-gym-cache"
    path = cache / hashlib.sha1(TABLE_URL.encode(), usedforsecurity=False).hexdigest()
    if not path.is_file():
        raise FileNotFoundError(path)
    return path


def _decode_all(decode: Decode, inputs: Sequence[Sequence[int]]) -> list[str]:
    return [_decode_ids(decode, ids, index) for index, ids in enumerate(inputs)]


def _decode_ids(decode: Decode, ids: Sequence[int], index: int) -> str:
    """Decode ids to text; a piece may begin or end inside a character, so bytes are decoded with replacement.

    Raises:
        InputError: An id is not in cl100k.
    """
    if max(ids) >= CL100K_IDS or FIRST_SPECIAL_ID - 1 in ids:
        raise InputError(
            f"token ids are read as OpenAI's cl100k, which ends at {CL100K_IDS - 1}; {HOW_TO_AVOID}",
            param="input",
            input_index=index,
        )
    plain = [i for i in ids if i < FIRST_SPECIAL_ID]
    return decode(plain).decode("utf-8", "replace")
