import resource

import torch

from fedstill.memory import keep_freed_memory


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def test_a_tensor_of_megabytes_takes_the_pages_of_the_one_before() -> None:
    keep_freed_memory()
    for _ in range(40):
        torch.ones(1 << 20)
    before = faults()
    for _ in range(20):
        torch.ones(1 << 20)  # 1,024 pages each
    assert faults() - before < 1024
