"""The numeric formats of a released student."""

from collections.abc import Mapping
from types import MappingProxyType

from server.release.formats.dynamic_int8 import DYNAMIC_INT8
from server.release.formats.float16 import FLOAT16
from server.release.formats.float32 import FLOAT32
from server.release.formats.int4 import INT4
from server.release.formats.interface import Format
from server.release.formats.static_int8 import STATIC_INT8
from server.release.weights import Kind, weight_kinds

__all__ = ["FORMATS", "Format", "Kind", "weight_kinds"]

FORMATS: Mapping[str, Format] = MappingProxyType(
    {found.name: found for found in (FLOAT32, STATIC_INT8, DYNAMIC_INT8, FLOAT16, INT4)}
)
