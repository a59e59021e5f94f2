from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FromAnchor(_message.Message):
    __slots__ = ("hello", "echo")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ECHO_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    echo: Echo
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., echo: _Optional[_Union[Echo, _Mapping]] = ...) -> None: ...

class FromWorker(_message.Message):
    __slots__ = ("welcome", "status", "stats", "drain", "echo")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    ECHO_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    status: Status
    stats: Stats
    drain: Drain
    echo: Echo
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., status: _Optional[_Union[Status, _Mapping]] = ..., stats: _Optional[_Union[Stats, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., echo: _Optional[_Union[Echo, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "oldest", "anchor", "software")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    OLDEST_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    oldest: int
    anchor: str
    software: str
    def __init__(self, protocol: _Optional[int] = ..., oldest: _Optional[int] = ..., anchor: _Optional[str] = ..., software: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "worker", "instance", "backend", "upscaler", "codecs", "max_side", "software")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    UPSCALER_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    MAX_SIDE_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    worker: str
    instance: str
    backend: str
    upscaler: str
    codecs: _containers.RepeatedScalarFieldContainer[str]
    max_side: int
    software: str
    def __init__(self, protocol: _Optional[int] = ..., worker: _Optional[str] = ..., instance: _Optional[str] = ..., backend: _Optional[str] = ..., upscaler: _Optional[str] = ..., codecs: _Optional[_Iterable[str]] = ..., max_side: _Optional[int] = ..., software: _Optional[str] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("state", "reason", "device", "fps", "slots_total", "slots_used")
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SLOTS_USED_FIELD_NUMBER: _ClassVar[int]
    state: str
    reason: str
    device: str
    fps: float
    slots_total: int
    slots_used: int
    def __init__(self, state: _Optional[str] = ..., reason: _Optional[str] = ..., device: _Optional[str] = ..., fps: _Optional[float] = ..., slots_total: _Optional[int] = ..., slots_used: _Optional[int] = ...) -> None: ...

class Stats(_message.Message):
    __slots__ = ("rows",)
    class Row(_message.Message):
        __slots__ = ("name", "labels", "amount")
        class LabelsEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: str
            def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
        NAME_FIELD_NUMBER: _ClassVar[int]
        LABELS_FIELD_NUMBER: _ClassVar[int]
        AMOUNT_FIELD_NUMBER: _ClassVar[int]
        name: str
        labels: _containers.ScalarMap[str, str]
        amount: float
        def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., amount: _Optional[float] = ...) -> None: ...
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[Stats.Row]
    def __init__(self, rows: _Optional[_Iterable[_Union[Stats.Row, _Mapping]]] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("seconds",)
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    seconds: float
    def __init__(self, seconds: _Optional[float] = ...) -> None: ...

class Echo(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class ToLane(_message.Message):
    __slots__ = ("open", "unit", "picture", "renditions", "keyframe", "finish", "park", "hung")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    RENDITIONS_FIELD_NUMBER: _ClassVar[int]
    KEYFRAME_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    PARK_FIELD_NUMBER: _ClassVar[int]
    HUNG_FIELD_NUMBER: _ClassVar[int]
    open: Open
    unit: Unit
    picture: Picture
    renditions: Renditions
    keyframe: Keyframe
    finish: Finish
    park: Park
    hung: Hung
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., unit: _Optional[_Union[Unit, _Mapping]] = ..., picture: _Optional[_Union[Picture, _Mapping]] = ..., renditions: _Optional[_Union[Renditions, _Mapping]] = ..., keyframe: _Optional[_Union[Keyframe, _Mapping]] = ..., finish: _Optional[_Union[Finish, _Mapping]] = ..., park: _Optional[_Union[Park, _Mapping]] = ..., hung: _Optional[_Union[Hung, _Mapping]] = ...) -> None: ...

class FromLane(_message.Message):
    __slots__ = ("opened", "denied", "encoded", "unencoded", "returned", "need_source", "ended")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    DENIED_FIELD_NUMBER: _ClassVar[int]
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    UNENCODED_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    NEED_SOURCE_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    denied: Denied
    encoded: Encoded
    unencoded: Unencoded
    returned: Returned
    need_source: NeedSource
    ended: Ended
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., denied: _Optional[_Union[Denied, _Mapping]] = ..., encoded: _Optional[_Union[Encoded, _Mapping]] = ..., unencoded: _Optional[_Union[Unencoded, _Mapping]] = ..., returned: _Optional[_Union[Returned, _Mapping]] = ..., need_source: _Optional[_Union[NeedSource, _Mapping]] = ..., ended: _Optional[_Union[Ended, _Mapping]] = ...) -> None: ...

class Rendition(_message.Message):
    __slots__ = ("codec", "bitrate_bps", "profile", "thin", "target")
    CODEC_FIELD_NUMBER: _ClassVar[int]
    BITRATE_BPS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    THIN_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    codec: str
    bitrate_bps: int
    profile: str
    thin: bool
    target: Target
    def __init__(self, codec: _Optional[str] = ..., bitrate_bps: _Optional[int] = ..., profile: _Optional[str] = ..., thin: _Optional[bool] = ..., target: _Optional[_Union[Target, _Mapping]] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("scale", "width", "height", "fit")
    SCALE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FIT_FIELD_NUMBER: _ClassVar[int]
    scale: float
    width: int
    height: int
    fit: str
    def __init__(self, scale: _Optional[float] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., fit: _Optional[str] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("width", "height", "renditions", "stabilise", "stream", "fps", "stands_in", "guest")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    RENDITIONS_FIELD_NUMBER: _ClassVar[int]
    STABILISE_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    STANDS_IN_FIELD_NUMBER: _ClassVar[int]
    GUEST_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    renditions: _containers.RepeatedCompositeFieldContainer[Rendition]
    stabilise: str
    stream: str
    fps: float
    stands_in: bool
    guest: bool
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., renditions: _Optional[_Iterable[_Union[Rendition, _Mapping]]] = ..., stabilise: _Optional[str] = ..., stream: _Optional[str] = ..., fps: _Optional[float] = ..., stands_in: _Optional[bool] = ..., guest: _Optional[bool] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Denied(_message.Message):
    __slots__ = ("reason", "text")
    REASON_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    reason: str
    text: str
    def __init__(self, reason: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Unit(_message.Message):
    __slots__ = ("pts", "age_s", "number", "codec", "keyframe", "data")
    PTS_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    KEYFRAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    pts: int
    age_s: float
    number: int
    codec: str
    keyframe: bool
    data: bytes
    def __init__(self, pts: _Optional[int] = ..., age_s: _Optional[float] = ..., number: _Optional[int] = ..., codec: _Optional[str] = ..., keyframe: _Optional[bool] = ..., data: _Optional[bytes] = ...) -> None: ...

class Picture(_message.Message):
    __slots__ = ("pts", "age_s", "width", "height", "matrix", "full_range", "data", "decode_s")
    PTS_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    MATRIX_FIELD_NUMBER: _ClassVar[int]
    FULL_RANGE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DECODE_S_FIELD_NUMBER: _ClassVar[int]
    pts: int
    age_s: float
    width: int
    height: int
    matrix: str
    full_range: bool
    data: bytes
    decode_s: float
    def __init__(self, pts: _Optional[int] = ..., age_s: _Optional[float] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., matrix: _Optional[str] = ..., full_range: _Optional[bool] = ..., data: _Optional[bytes] = ..., decode_s: _Optional[float] = ...) -> None: ...

class Renditions(_message.Message):
    __slots__ = ("list",)
    LIST_FIELD_NUMBER: _ClassVar[int]
    list: _containers.RepeatedCompositeFieldContainer[Rendition]
    def __init__(self, list: _Optional[_Iterable[_Union[Rendition, _Mapping]]] = ...) -> None: ...

class Keyframe(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Finish(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Park(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Hung(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Encoded(_message.Message):
    __slots__ = ("pts", "rendition", "keyframe", "width", "height", "queue_s", "upscale_s", "encode_s", "data", "held_s")
    PTS_FIELD_NUMBER: _ClassVar[int]
    RENDITION_FIELD_NUMBER: _ClassVar[int]
    KEYFRAME_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    UPSCALE_S_FIELD_NUMBER: _ClassVar[int]
    ENCODE_S_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    HELD_S_FIELD_NUMBER: _ClassVar[int]
    pts: int
    rendition: Rendition
    keyframe: bool
    width: int
    height: int
    queue_s: float
    upscale_s: float
    encode_s: float
    data: bytes
    held_s: float
    def __init__(self, pts: _Optional[int] = ..., rendition: _Optional[_Union[Rendition, _Mapping]] = ..., keyframe: _Optional[bool] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., queue_s: _Optional[float] = ..., upscale_s: _Optional[float] = ..., encode_s: _Optional[float] = ..., data: _Optional[bytes] = ..., held_s: _Optional[float] = ...) -> None: ...

class Unencoded(_message.Message):
    __slots__ = ("pts",)
    PTS_FIELD_NUMBER: _ClassVar[int]
    pts: int
    def __init__(self, pts: _Optional[int] = ...) -> None: ...

class Returned(_message.Message):
    __slots__ = ("received", "upscaled", "dropped", "degraded", "can_spend_less", "stuck_s")
    class DroppedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    UPSCALED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    CAN_SPEND_LESS_FIELD_NUMBER: _ClassVar[int]
    STUCK_S_FIELD_NUMBER: _ClassVar[int]
    received: int
    upscaled: int
    dropped: _containers.ScalarMap[str, int]
    degraded: bool
    can_spend_less: bool
    stuck_s: float
    def __init__(self, received: _Optional[int] = ..., upscaled: _Optional[int] = ..., dropped: _Optional[_Mapping[str, int]] = ..., degraded: _Optional[bool] = ..., can_spend_less: _Optional[bool] = ..., stuck_s: _Optional[float] = ...) -> None: ...

class NeedSource(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Ended(_message.Message):
    __slots__ = ("kind", "text")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    text: str
    def __init__(self, kind: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class ProbeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
