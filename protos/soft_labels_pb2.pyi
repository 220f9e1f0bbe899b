from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_UNSPECIFIED: _ClassVar[Encoding]
    PROBABILITY_FLOAT32: _ClassVar[Encoding]
    PROBABILITY_FLOAT16: _ClassVar[Encoding]
    SIMPLEX_8BIT: _ClassVar[Encoding]
    CENTRED_LOGITS_FLOAT16: _ClassVar[Encoding]
    SIMPLEX: _ClassVar[Encoding]
    TOP_K: _ClassVar[Encoding]
ENCODING_UNSPECIFIED: Encoding
PROBABILITY_FLOAT32: Encoding
PROBABILITY_FLOAT16: Encoding
SIMPLEX_8BIT: Encoding
CENTRED_LOGITS_FLOAT16: Encoding
SIMPLEX: Encoding
TOP_K: Encoding

class Samples(_message.Message):
    __slots__ = ("draw", "bitmap")
    class Draw(_message.Message):
        __slots__ = ("seed", "round", "count", "independent", "duration", "rounds")
        SEED_FIELD_NUMBER: _ClassVar[int]
        ROUND_FIELD_NUMBER: _ClassVar[int]
        COUNT_FIELD_NUMBER: _ClassVar[int]
        INDEPENDENT_FIELD_NUMBER: _ClassVar[int]
        DURATION_FIELD_NUMBER: _ClassVar[int]
        ROUNDS_FIELD_NUMBER: _ClassVar[int]
        seed: int
        round: int
        count: int
        independent: bool
        duration: int
        rounds: int
        def __init__(self, seed: _Optional[int] = ..., round: _Optional[int] = ..., count: _Optional[int] = ..., independent: _Optional[bool] = ..., duration: _Optional[int] = ..., rounds: _Optional[int] = ...) -> None: ...
    DRAW_FIELD_NUMBER: _ClassVar[int]
    BITMAP_FIELD_NUMBER: _ClassVar[int]
    draw: Samples.Draw
    bitmap: bytes
    def __init__(self, draw: _Optional[_Union[Samples.Draw, _Mapping]] = ..., bitmap: _Optional[bytes] = ...) -> None: ...

class Packet(_message.Message):
    __slots__ = ("version", "run", "round", "proxy_digest", "proxy_size", "samples", "classes", "encoding", "payload", "abstained", "certainty", "class_prior", "base_version", "cache_version", "checksum", "ages", "parameter", "entropy_coded", "base_checksum")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PROXY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PROXY_SIZE_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ABSTAINED_FIELD_NUMBER: _ClassVar[int]
    CERTAINTY_FIELD_NUMBER: _ClassVar[int]
    CLASS_PRIOR_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CACHE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    AGES_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_CODED_FIELD_NUMBER: _ClassVar[int]
    BASE_CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    version: int
    run: int
    round: int
    proxy_digest: bytes
    proxy_size: int
    samples: Samples
    classes: int
    encoding: Encoding
    payload: bytes
    abstained: bytes
    certainty: bytes
    class_prior: bytes
    base_version: int
    cache_version: int
    checksum: int
    ages: _containers.RepeatedScalarFieldContainer[int]
    parameter: int
    entropy_coded: bool
    base_checksum: int
    def __init__(self, version: _Optional[int] = ..., run: _Optional[int] = ..., round: _Optional[int] = ..., proxy_digest: _Optional[bytes] = ..., proxy_size: _Optional[int] = ..., samples: _Optional[_Union[Samples, _Mapping]] = ..., classes: _Optional[int] = ..., encoding: _Optional[_Union[Encoding, str]] = ..., payload: _Optional[bytes] = ..., abstained: _Optional[bytes] = ..., certainty: _Optional[bytes] = ..., class_prior: _Optional[bytes] = ..., base_version: _Optional[int] = ..., cache_version: _Optional[int] = ..., checksum: _Optional[int] = ..., ages: _Optional[_Iterable[int]] = ..., parameter: _Optional[int] = ..., entropy_coded: _Optional[bool] = ..., base_checksum: _Optional[int] = ...) -> None: ...

class RoundRequest(_message.Message):
    __slots__ = ("version", "run", "round", "rounds", "consensus", "predict", "cache_checksum", "acknowledged")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    CONSENSUS_FIELD_NUMBER: _ClassVar[int]
    PREDICT_FIELD_NUMBER: _ClassVar[int]
    CACHE_CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    version: int
    run: int
    round: int
    rounds: int
    consensus: Packet
    predict: Samples
    cache_checksum: int
    acknowledged: int
    def __init__(self, version: _Optional[int] = ..., run: _Optional[int] = ..., round: _Optional[int] = ..., rounds: _Optional[int] = ..., consensus: _Optional[_Union[Packet, _Mapping]] = ..., predict: _Optional[_Union[Samples, _Mapping]] = ..., cache_checksum: _Optional[int] = ..., acknowledged: _Optional[int] = ...) -> None: ...
