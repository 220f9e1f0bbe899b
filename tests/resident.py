"""What processes have in memory, as if they were alone on a machine."""

import psutil


def resident(*processes: int) -> int:
    """Return the bytes of memory that processes occupy together.

    Pages of a mapped file are in memory once, however many of the processes map it; which of them each has in its
    tables is the kernel's choice, so the largest count of each file is taken.

    Raises:
        psutil.Error: one has ended, or is another user's.
    """
    own, files = 0, dict[str, int]()
    for process in processes:
        for held in psutil.Process(process).memory_maps():
            if held.path.startswith("/"):
                own += held.anonymous
                files[held.path] = max(files.get(held.path, 0), held.rss - held.anonymous)
            else:
                own += held.rss
    return own + sum(files.values())
