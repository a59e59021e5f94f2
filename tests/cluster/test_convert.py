"""Messages and our values: both ways, sizes, versions, and what is refused."""

from __future__ import annotations

import importlib.util
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("grpc", reason="needs the extra cluster")

from google.protobuf.message import DecodeError

from streamlift.cluster.units import MOST_UNIT_BYTES
from streamlift.cluster.wire import convert
from streamlift.cluster.wire import worker_pb2 as pb
from streamlift.errors import (
    InvalidOutput,
    MediaError,
    NoCapacity,
    NotReady,
    OutOfMemory,
    UpscaleError,
    UpscalerHung,
    WorkerDraining,
    WorkerLost,
)
from streamlift.frames import (
    Codec,
    CodedVideo,
    Colour,
    EncodedFrame,
    Fit,
    Frame,
    LaneOptions,
    Planes,
    Rendition,
    Size,
    Stabilise,
    StageTimes,
    Target,
)
from streamlift.routing.budgets import FaultKind, fault_kind

THIN = Rendition(Codec.VP8, 500_000, "", thin=True)


@pytest.mark.parametrize("size", [Size(66, 64), Size(65, 67)])
def test_a_picture_arrives_as_it_was_on_the_other_clock(size: Size) -> None:
    rng = np.random.default_rng(1)
    wide = rng.integers(0, 256, (size.height, size.width + 30), np.uint8)
    chroma = rng.integers(0, 256, ((size.height + 1) // 2, (size.width + 1) // 2), np.uint8)
    planes = Planes(wide[:, : size.width], chroma, chroma.copy())
    sent = Frame(900, size, planes, Colour("bt709", True), arrived_s=100.0, decode_s=0.002)
    data = convert.picture_bytes(sent, age_s=0.25)
    got = convert.picture_frame(pb.ToLane.FromString(data).picture, now_s=7.0, max_side=1280)
    assert (got.pts, got.size, got.colour, got.decode_s) == (900, size, sent.colour, 0.002)
    assert got.arrived_s == 6.75
    for ours, theirs in zip(sent.planes.each(), got.planes.each(), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_picture_that_does_not_fit_its_size_is_refused() -> None:
    with pytest.raises(MediaError, match="64x64 in 10 bytes"):
        convert.picture_frame(pb.Picture(width=64, height=64, data=b"x" * 10), 0.0, 1280)
    with pytest.raises(MediaError, match="70000x64"):
        convert.picture_frame(pb.Picture(width=70000, height=64), 0.0, 1280)


def test_options_of_a_lane_arrive_as_they_were() -> None:
    options = LaneOptions(
        frozenset({THIN}), Stabilise.LITE, "live", 24.5, stands_in=True, guest=True
    )
    sent = convert.open_message(Size(640, 360), options).SerializeToString()
    assert convert.lane_options(pb.Open.FromString(sent)) == options
    bare = convert.open_message(Size(64, 64), LaneOptions(frozenset()))
    assert convert.lane_options(bare) == LaneOptions(frozenset())


@pytest.mark.parametrize(
    "target", [Target(scale=1.5), Target(size=Size(1280, 720), fit=Fit.COVER), None]
)
def test_the_target_of_a_rendition_goes_up_and_comes_back(target: Target | None) -> None:
    wanted = replace(THIN, target=target)
    sent = convert.renditions_message([wanted]).SerializeToString()
    assert convert.renditions(pb.Renditions.FromString(sent).list) == {wanted}
    frame = EncodedFrame(5, Size(1280, 720), wanted, True, b"data", arrived_s=55.0)
    message = pb.Encoded.FromString(convert.encoded_message(frame).SerializeToString())
    assert convert.encoded_frame(message, 0.0, 0.0).rendition.target == target


@pytest.mark.parametrize(
    "target",
    [pb.Target(), pb.Target(scale=9), pb.Target(width=1281, height=720, fit="contain"),
     pb.Target(width=1280, height=720, fit="wide"), pb.Target(scale=float("nan"))],
)  # fmt: skip
def test_a_target_that_is_none_is_refused(target: pb.Target) -> None:
    with pytest.raises(MediaError):
        convert.renditions([pb.Rendition(codec="h264", target=target)])


def test_a_coded_frame_keeps_the_anchors_own_times() -> None:
    stages = StageTimes(9.0, 0.01, 0.02, 0.03)
    frame = EncodedFrame(5, Size(128, 128), THIN, True, b"data", arrived_s=55.0, stages=stages)
    got = convert.encoded_frame(convert.encoded_message(frame), arrived_s=3.0, decode_s=0.5)
    assert (got.pts, got.size, got.rendition, got.keyframe, got.data) == (
        5,
        Size(128, 128),
        THIN,
        True,
        b"data",
    )
    assert (got.arrived_s, got.stages) == (3.0, StageTimes(0.5, 0.01, 0.02, 0.03))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidOutput("black"), FaultKind.INVALID),
        (OutOfMemory("full"), FaultKind.OUT_OF_MEMORY),
        (UpscalerHung("stuck"), FaultKind.HANG),
        (MediaError("odd"), FaultKind.UNSUPPORTED),
        (WorkerLost("gone"), FaultKind.LOST),
        (WorkerDraining("ends"), FaultKind.DRAINING),
        (UpscaleError("broke"), FaultKind.RAISE),
        (MemoryError("host"), FaultKind.OUT_OF_MEMORY),
        (TimeoutError("late"), FaultKind.HANG),
        (ValueError("any"), FaultKind.RAISE),
    ],
)
def test_a_fault_is_of_the_same_kind_on_both_sides(error: Exception, kind: FaultKind) -> None:
    got = convert.error_of(pb.Ended.FromString(convert.ended_message(error).SerializeToString()))
    assert got is not None
    assert (fault_kind(got), str(got)) == (kind, str(error))


def test_no_fault_is_no_error() -> None:
    assert convert.error_of(convert.ended_message(None)) is None


@pytest.mark.parametrize("cls", [NoCapacity, NotReady, MediaError])
def test_a_refusal_is_of_the_same_kind_on_both_sides(cls: type[Exception]) -> None:
    refused = convert.refusal_of(convert.denied_message(cls("why")))  # type: ignore[arg-type]
    assert (type(refused), str(refused)) == (cls, "why")


@pytest.mark.parametrize(
    ("theirs", "ours", "common"),
    [((1, 1), (1, 1), 1), ((3, 2), (2, 1), 2), ((3, 3), (2, 1), 0), ((1, 1), (4, 2), 0)],
)
def test_both_speak_the_newest_version_they_share(
    theirs: tuple[int, int], ours: tuple[int, int], common: int
) -> None:
    assert convert.common_version(*theirs, *ours) == common


def test_each_kind_of_message_has_its_own_limit() -> None:
    for message in (
        pb.ToLane(unit=pb.Unit(data=bytes(900_000))),
        pb.ToLane(picture=pb.Picture(data=bytes(1280 * 1280 * 3 // 2))),
    ):
        convert.check_size(message, message.ByteSize())
    for message in (
        pb.ToLane(unit=pb.Unit(data=bytes(1024 * 1024))),
        pb.ToLane(open=pb.Open(stream="x" * 70_000)),
        pb.ToLane(picture=pb.Picture(data=bytes(2_700_000))),
    ):
        with pytest.raises(MediaError, match="bytes"):
            convert.check_size(message, message.ByteSize())


def test_the_largest_unit_that_is_sent_is_taken() -> None:
    y, c = np.zeros((64, 64), np.uint8), np.zeros((32, 32), np.uint8)
    coded = CodedVideo(Codec.H264, bytes(MOST_UNIT_BYTES), True, 2**63)
    frame = Frame(2**62, Size(64, 64), Planes(y, c, c), Colour(), 0.0, coded)
    message = pb.ToLane(unit=convert.unit_message(frame, coded, 0.123))
    convert.check_size(message, len(message.SerializeToString()))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_an_error_of_ours(data: bytes) -> None:
    with suppress(DecodeError, MediaError):
        options = convert.lane_options(pb.Open.FromString(data))
        assert options.fps is None or 0 < options.fps <= 1000
        assert len(options.renditions) <= 16


@pytest.mark.skipif(importlib.util.find_spec("grpc_tools") is None, reason="needs grpcio-tools")
def test_the_generated_module_is_that_of_the_proto(tmp_path: Path) -> None:
    from google.protobuf import descriptor_pb2
    from grpc_tools import protoc

    root = Path(__file__).parents[2] / "src"
    made = tmp_path / "worker.pb"
    arguments = ["protoc", f"-I{root}", f"--descriptor_set_out={made}"]
    assert protoc.main([*arguments, str(root / "streamlift/cluster/wire/worker.proto")]) == 0
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file
    generated = descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    derived = re.compile(r'\n *json_name: ".*"')
    assert derived.sub("", str(file)) == str(generated), "run python -m scripts.make_wire"
