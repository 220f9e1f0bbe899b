"""Exporters and quantizers that say what nobody needs to read."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Let only errors through while a model is converted, and undo what converters do to the root logger.

    A quantizer of ONNX Runtime calls `logging.basicConfig` when it is imported, which turns on every library's log; so
    it is imported within.
    """
    root = logging.getLogger()
    disabled, level, handlers = root.manager.disable, root.level, [*root.handlers]
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.setLevel(level)
        root.handlers[:] = handlers
