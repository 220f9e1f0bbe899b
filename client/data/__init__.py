"""A device's own data: one small file describes them, and they never leave the device."""

from client.data.description import DataDescription, read_description
from client.data.images import lacking
from client.data.load import Labelled, LocalData, load

__all__ = ["DataDescription", "Labelled", "LocalData", "lacking", "load", "read_description"]
