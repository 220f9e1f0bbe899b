"""Labels of a user's data as class indices of a task."""

from pathlib import Path
from typing import Any

from fedstill.errors import DataError
from fedstill.loading import nearest
from fedstill.tasks import Task


def index_of(label: Any, task: Task, place: Path | str) -> int:
    """Return the class index of a label: the name of a class, or else a class index.

    Args:
        label: as it was read, of any type.
        task: whose classes it must be one of.
        place: where it was read, for the error.

    Raises:
        DataError: it is none of the task's classes.
    """
    name = str(label).strip()
    if name in task.label_names:
        return task.label_names.index(name)
    if name.isdecimal() and int(name) < task.classes:
        return int(name)
    raise DataError(f"{place}: label {name!r} is no class of task {task.name}; {nearest(name, task.label_names)}")
