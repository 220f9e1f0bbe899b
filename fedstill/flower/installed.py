"""What Flower keeps of apps: it installs one that is not there, and takes one that is there for whole."""

import shutil

from flwr.common.constant import APP_DIR
from flwr.supercore.utils import get_flwr_home


def forget_installed() -> None:
    """Remove what apps consist of; Flower installs an app that is not there from the next message.

    What it wrote half, as the power was cut, the app was killed or the disk was full, it would take for whole for ever.
    """
    shutil.rmtree(get_flwr_home() / APP_DIR, ignore_errors=True)
