"""What processes have in memory, as if they were alone on a machine."""

from pathlib import Path

import psutil


def resident(*processes: int) -> int:
    """Return the bytes of memory that processes occupy together.

    Pages of a mapped file are in memory once, however many of the processes map it; which of them each has in its
    tables is the kernel's choice, so the largest count of each file is taken. Of other pages that forks share, each
    has its share (PSS).

    Raises:
        psutil.Error: one has ended, or is another user's.
        OSError: the same.
    """
    own, files = 0, dict[str, int]()
    for process in processes:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                own += int(line.split()[1]) * 1024
        for held in psutil.Process(process).memory_maps():
            if held.path.startswith("/"):
                files[held.path] = max(files.get(held.path, 0), held.rss - held.anonymous)
    return own + sum(files.values())
