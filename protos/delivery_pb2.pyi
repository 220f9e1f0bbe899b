from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_RUNNING: _ClassVar[Outcome]
    OUTCOME_INSTALLED: _ClassVar[Outcome]
    OUTCOME_COMMITTED: _ClassVar[Outcome]
    OUTCOME_REFUSED: _ClassVar[Outcome]
    OUTCOME_ROLLED_BACK: _ClassVar[Outcome]
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_RUNNING: Outcome
OUTCOME_INSTALLED: Outcome
OUTCOME_COMMITTED: Outcome
OUTCOME_REFUSED: Outcome
OUTCOME_ROLLED_BACK: Outcome

class NewestRequest(_message.Message):
    __slots__ = ("device_class", "device_id", "installed_version", "root_version")
    DEVICE_CLASS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    INSTALLED_VERSION_FIELD_NUMBER: _ClassVar[int]
    ROOT_VERSION_FIELD_NUMBER: _ClassVar[int]
    device_class: str
    device_id: str
    installed_version: int
    root_version: int
    def __init__(self, device_class: _Optional[str] = ..., device_id: _Optional[str] = ..., installed_version: _Optional[int] = ..., root_version: _Optional[int] = ...) -> None: ...

class NewestReply(_message.Message):
    __slots__ = ("granted", "reason", "version", "timestamp", "snapshot", "targets", "roots", "withdrawn")
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    granted: bool
    reason: str
    version: int
    timestamp: bytes
    snapshot: bytes
    targets: bytes
    roots: _containers.RepeatedScalarFieldContainer[bytes]
    withdrawn: bool
    def __init__(self, granted: _Optional[bool] = ..., reason: _Optional[str] = ..., version: _Optional[int] = ..., timestamp: _Optional[bytes] = ..., snapshot: _Optional[bytes] = ..., targets: _Optional[bytes] = ..., roots: _Optional[_Iterable[bytes]] = ..., withdrawn: _Optional[bool] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("device_class", "version", "name", "offset")
    DEVICE_CLASS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    device_class: str
    version: int
    name: str
    offset: int
    def __init__(self, device_class: _Optional[str] = ..., version: _Optional[int] = ..., name: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Telemetry(_message.Message):
    __slots__ = ("device_id", "device_class", "sequence", "unix_seconds", "version", "outcome", "detail", "file", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "peak_rss_bytes", "temperature_celsius", "power_watts", "samples", "accuracy", "drift", "predictions", "onnxruntime", "processor")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_CLASS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P50_MS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P90_MS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P99_MS_FIELD_NUMBER: _ClassVar[int]
    PEAK_RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    POWER_WATTS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    ONNXRUNTIME_FIELD_NUMBER: _ClassVar[int]
    PROCESSOR_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    device_class: str
    sequence: int
    unix_seconds: float
    version: int
    outcome: Outcome
    detail: str
    file: str
    latency_p50_ms: float
    latency_p90_ms: float
    latency_p99_ms: float
    peak_rss_bytes: int
    temperature_celsius: float
    power_watts: float
    samples: int
    accuracy: float
    drift: float
    predictions: int
    onnxruntime: str
    processor: str
    def __init__(self, device_id: _Optional[str] = ..., device_class: _Optional[str] = ..., sequence: _Optional[int] = ..., unix_seconds: _Optional[float] = ..., version: _Optional[int] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., detail: _Optional[str] = ..., file: _Optional[str] = ..., latency_p50_ms: _Optional[float] = ..., latency_p90_ms: _Optional[float] = ..., latency_p99_ms: _Optional[float] = ..., peak_rss_bytes: _Optional[int] = ..., temperature_celsius: _Optional[float] = ..., power_watts: _Optional[float] = ..., samples: _Optional[int] = ..., accuracy: _Optional[float] = ..., drift: _Optional[float] = ..., predictions: _Optional[int] = ..., onnxruntime: _Optional[str] = ..., processor: _Optional[str] = ...) -> None: ...

class ReportReply(_message.Message):
    __slots__ = ("accepted_sequence",)
    ACCEPTED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    accepted_sequence: int
    def __init__(self, accepted_sequence: _Optional[int] = ...) -> None: ...
