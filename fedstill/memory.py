"""Memory that a process has freed stays its own, for the next tensors.

glibc hands blocks of more than 128 kB back to the kernel as they are freed, and gets empty pages for the next ones: for
a small convolutional network, whose activations are a megabyte each, that costs three times its arithmetic.
"""

import ctypes
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of `mallopt(3)`."""
LARGEST = 32 << 20
"""Bytes from which on a block is the kernel's alone; glibc takes no more."""
KEPT = 64 << 20
"""Bytes of freed memory that may stay."""


@cache  # a host asks for it with each device that it makes
def keep_freed_memory() -> None:
    """Set this process's allocator up so, once; one that knows no `mallopt` stays as it is."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGEST)
        mallopt(TRIM_THRESHOLD, KEPT)
