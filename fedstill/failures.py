"""What went wrong, in one line: others' words, and where: stage and step, noted on an exception on its way out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_MARK = "fedstill: "  # tells our notes from others'


@contextmanager
def stage(name: str, step: Callable[[], int] | None = None) -> Iterator[None]:
    """Note on an exception that leaves this block where it happened; the innermost stage is the one that counts.

    Args:
        name: of the stage.
        step: tells the step that it is at, from 1; None: the stage has no steps.
    """
    try:
        yield
    except Exception as error:
        if place_of(error) is None:
            error.add_note(_MARK + name + ("" if step is None else f", batch {step()}"))
        raise


def place_of(error: BaseException) -> str | None:
    """Return the stage and step that were noted on an exception, None where there is none."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(_MARK)]
    return notes[0].removeprefix(_MARK) if notes else None


def told(error: BaseException) -> str:
    """Return one line about a failure: stage and step where they are known, kind and message."""
    message = " ".join(str(error).split())
    what = f"{type(error).__name__}: {message}" if message else type(error).__name__
    place = place_of(error)
    return what if place is None else f"{place}: {what}"


def plain(text: str, limit: int = 500) -> str:
    """Return a text of somebody else in one line that can be shown and kept: no line of a log is forged with it."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:limit])
