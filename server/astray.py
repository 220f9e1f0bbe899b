"""Whether a training went astray: what it left is no numbers."""

from fedstill.learning import State


def finite(state: State) -> bool:
    """Return whether all parameters and buffers of a model are numbers."""
    return all(bool(tensor.isfinite().all()) for tensor in state.values())
