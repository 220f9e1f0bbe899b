import numpy as np

from simulations.memory import PeakMemory, tree_pss


def test_the_peak_remembers_memory_that_was_given_back() -> None:
    before = tree_pss()
    with PeakMemory(interval=0.01) as memory:
        block = np.ones(100 << 20, dtype=np.uint8)
        while memory.peak < before + (80 << 20):
            block.fill(2)  # keeps the block in use until a sample has seen it
        del block
    assert memory.peak >= before + (80 << 20)
