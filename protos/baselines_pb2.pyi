from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Weights(_message.Message):
    __slots__ = ("version", "run", "round", "rounds", "samples", "values")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    version: int
    run: int
    round: int
    rounds: int
    samples: int
    values: bytes
    def __init__(self, version: _Optional[int] = ..., run: _Optional[int] = ..., round: _Optional[int] = ..., rounds: _Optional[int] = ..., samples: _Optional[int] = ..., values: _Optional[bytes] = ...) -> None: ...

class LabelVectors(_message.Message):
    __slots__ = ("version", "run", "round", "rounds", "classes", "present", "vectors")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    version: int
    run: int
    round: int
    rounds: int
    classes: int
    present: bytes
    vectors: bytes
    def __init__(self, version: _Optional[int] = ..., run: _Optional[int] = ..., round: _Optional[int] = ..., rounds: _Optional[int] = ..., classes: _Optional[int] = ..., present: _Optional[bytes] = ..., vectors: _Optional[bytes] = ...) -> None: ...

class Tick(_message.Message):
    __slots__ = ("version", "run", "round", "rounds")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    version: int
    run: int
    round: int
    rounds: int
    def __init__(self, version: _Optional[int] = ..., run: _Optional[int] = ..., round: _Optional[int] = ..., rounds: _Optional[int] = ...) -> None: ...

class Neighbours(_message.Message):
    __slots__ = ("version", "run", "round", "rounds", "labels", "start")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    version: int
    run: int
    round: int
    rounds: int
    labels: _containers.RepeatedScalarFieldContainer[bytes]
    start: bytes
    def __init__(self, version: _Optional[int] = ..., run: _Optional[int] = ..., round: _Optional[int] = ..., rounds: _Optional[int] = ..., labels: _Optional[_Iterable[bytes]] = ..., start: _Optional[bytes] = ...) -> None: ...
