from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DevicesRequest(_message.Message):
    __slots__ = ("protocol",)
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    def __init__(self, protocol: _Optional[int] = ...) -> None: ...

class DevicesReply(_message.Message):
    __slots__ = ("protocol", "classes")
    class ClassesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: str
        def __init__(self, key: _Optional[int] = ..., value: _Optional[str] = ...) -> None: ...
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    classes: _containers.ScalarMap[int, str]
    def __init__(self, protocol: _Optional[int] = ..., classes: _Optional[_Mapping[int, str]] = ...) -> None: ...

class AnswerRequest(_message.Message):
    __slots__ = ("protocol", "run", "plan", "requests")
    class RequestsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: bytes
        def __init__(self, key: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    run: str
    plan: str
    requests: _containers.ScalarMap[int, bytes]
    def __init__(self, protocol: _Optional[int] = ..., run: _Optional[str] = ..., plan: _Optional[str] = ..., requests: _Optional[_Mapping[int, bytes]] = ...) -> None: ...

class AnswerReply(_message.Message):
    __slots__ = ("protocol", "answers")
    class AnswersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: DeviceAnswer
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[DeviceAnswer, _Mapping]] = ...) -> None: ...
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    answers: _containers.MessageMap[int, DeviceAnswer]
    def __init__(self, protocol: _Optional[int] = ..., answers: _Optional[_Mapping[int, DeviceAnswer]] = ...) -> None: ...

class DeviceAnswer(_message.Message):
    __slots__ = ("packet", "metrics", "refusal", "held_version", "absence")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PACKET_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    HELD_VERSION_FIELD_NUMBER: _ClassVar[int]
    ABSENCE_FIELD_NUMBER: _ClassVar[int]
    packet: bytes
    metrics: _containers.ScalarMap[str, float]
    refusal: str
    held_version: int
    absence: str
    def __init__(self, packet: _Optional[bytes] = ..., metrics: _Optional[_Mapping[str, float]] = ..., refusal: _Optional[str] = ..., held_version: _Optional[int] = ..., absence: _Optional[str] = ...) -> None: ...
