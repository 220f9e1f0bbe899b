"""The user's own labelled data, for a release's label space: a description, a folder of folders, or an .npz file."""

from pathlib import Path

from client.data import DataDescription, Labelled, load, read_description
from fedstill.errors import ConfigError, DataError
from fedstill.release.manifest import Manifest
from fedstill.tasks import Arrays, Task


def labelled(path: Path, manifest: Manifest) -> tuple[str, Labelled]:
    """Return which file or folder was read, and its samples.

    Args:
        path: `data.toml` as of a device (its `test` part, if it has one), an .npz file with arrays `image` and `label`,
            or a folder with a sub-folder of images for each class.
        manifest: of the release.

    Raises:
        ConfigError: there is no such file, or the description can't be read.
        DataError: the data can't be read, or don't fit the release.
    """
    if path.suffix == ".toml":
        description = read_description(path)
    elif path.is_dir():
        description = DataDescription(format="folders", path=str(path))
    elif path.suffix == ".npz":
        description = DataDescription(format="npz", path=str(path))
    else:
        raise ConfigError(f"{path}: a folder with a sub-folder for each class, an .npz file or a data.toml is wanted")
    _, channels, height, width = manifest.self_test.shape
    found = load(description, Task(manifest.task, manifest.label_names, (channels, height, width), _nowhere))
    return (description.test, found.test) if len(found.test.labels) else (description.path, found.private)


def _nowhere(folder: Path | None) -> Arrays:
    raise DataError("a release holds no data")
