"""Settings of this process's memory allocator, and of its core dumps."""

import ctypes
import resource
from contextlib import suppress
from typing import Final

# Names and values of glibc's malloc.h.
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
MAX_MMAP_THRESHOLD_BYTES: Final = 32 * 2**20  # the highest that glibc takes
TRIM_THRESHOLD_BYTES: Final = 128 * 2**20


def keep_freed_memory() -> bool:
    """Let malloc reuse what a batch freed, instead of giving it back to the kernel.

    Every batch allocates and frees activations of some hundred kilobytes to some megabytes. Left to itself glibc maps
    blocks of that size anew until it has learned better, and trims what is free at the top of a heap: both cost page
    faults, a few per cent of an int8 batch (measured: 15,000 faults in 68 batches, none with this).

    Call it once the model is loaded: what loading freed is given back first, since none of it would be used again.

    Returns:
        Whether malloc took the settings; other C libraries have no such call, and need none.
    """
    try:
        library = ctypes.CDLL(None)
        mallopt, trim = library.mallopt, library.malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    trim(0)
    is_set = mallopt(M_MMAP_THRESHOLD, MAX_MMAP_THRESHOLD_BYTES)
    return bool(is_set and mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES))


def give_back_freed_memory() -> bool:
    """Return to the kernel what is free in the heaps, after a model was unloaded.

    Returns:
        Whether the C library gave any memory back.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    return bool(trim(0))


def bound_arenas(count: int) -> bool:
    """Let malloc keep at most `count` heaps, for a process whose models come and go; call it before threads start.

    Each new thread may get a heap of its own, up to eight a core, and each keeps what it freed. Workers of a model that
    is loaded again are new threads: ten times under load let a process grow by 15 to 25% without this, by 0 to 8% with
    it.

    Returns:
        Whether malloc took the setting.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(M_ARENA_MAX, count))
    except (AttributeError, OSError, TypeError):
        return False


def forbid_core_dumps() -> None:
    """Keep crashes of this process and those it starts from writing memory, which holds callers' texts, to a file."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
