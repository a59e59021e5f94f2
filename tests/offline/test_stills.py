"""Stills and sequences: channels, bits, alpha, orientation, profile; numbers and gaps."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.offline.media import make_clip, times_of

from streamlift.errors import ConfigError, MediaError
from streamlift.frames import Size, Stabilise
from streamlift.offline import Options, Result, upscale_file
from streamlift.offline.steps import Notes
from streamlift.offline.stills import Still, encode_still, read_still
from streamlift.upscalers import create_upscaler
from streamlift.upscalers.bicubic import Bicubic

SIDES = (40, 56)  # height, width


def gradient(channels: int, kind: Any = np.uint8) -> Any:
    """BGR(A) whose left is dark and top right red."""
    height, width = SIDES
    most = np.iinfo(kind).max
    ramp = np.linspace(most // 8, most // 2, width).astype(kind)
    picture = np.repeat(np.tile(ramp, (height, 1))[..., None], channels, axis=2)
    if channels >= 3:
        picture[: height // 2, width // 2 :, :3] = (0, 0, most)
    if channels == 4:
        picture[..., 3] = most
        picture[: height // 4, : width // 4, 3] = 0
    return picture


def read(path: Path) -> Any:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def go(source: Path, target: Path, **options: Any) -> Result:
    return upscale_file(source, target, Bicubic(), options=Options(**options))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("model", ["bicubic", "compact", "realesrgan"])
def test_channels_bits_and_alpha_are_kept(
    kind: Any, channels: int, suffix: str, model: str, tmp_path: Path
) -> None:
    picture = gradient(channels, kind)
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    assert cv2.imwrite(str(source), picture)
    result = upscale_file(source, target, upscaler_of(model))
    found = read(target)
    assert result.warnings == ()
    assert found.dtype == kind
    assert found.shape[:2] == (80, 112)
    assert (found.ndim == 2) == (channels == 1)
    expected = cv2.resize(picture, (112, 80), interpolation=cv2.INTER_CUBIC)
    difference = np.abs(found.astype(float) - expected.astype(float)) / np.iinfo(kind).max
    assert difference.mean() < 0.02
    if channels == 4:
        assert found[2, 2, 3] == 0
        assert found[60, 80, 3] == np.iinfo(kind).max


def upscaler_of(model: str) -> Any:
    if model != "realesrgan":
        return create_upscaler(model, settings={"tier": "xs"} if model == "compact" else {})
    torch = pytest.importorskip("torch")

    class Nearest:
        """An RGB model whose every pixel becomes four."""

        from streamlift.upscalers.base import Pixels, UpscalerSpec

        spec = UpscalerSpec("nearest", 2, multiple=4, pixels=Pixels.RGB)

        def open(self, size: Size, *, seed: int = 0) -> Nearest:
            assert size.width % 4 == size.height % 4 == 0
            return self

        def push(self, lr: Any) -> Any:
            yield torch.nn.functional.interpolate(lr, scale_factor=2.0, mode="nearest")

        def finish(self) -> Any:
            yield from ()

    return Nearest()


def test_smooth_ramps_of_16_bits_stay_smooth(tmp_path: Path) -> None:
    """A model of 8 bits would leave steps of 257."""
    ramp = np.linspace(20000, 24000, 64).astype(np.uint16)
    picture = np.repeat(np.tile(ramp, (32, 1))[..., None], 3, axis=2)
    cv2.imwrite(str(tmp_path / "in.png"), picture)
    upscale_file(tmp_path / "in.png", tmp_path / "out.png", upscaler_of("compact"))
    row = read(tmp_path / "out.png")[32, 8:-8, 1].astype(int)
    assert np.abs(np.diff(row)).max() < 200
    assert len(np.unique(row)) > 60


def test_fine_colour_is_not_averaged(tmp_path: Path) -> None:
    """Columns of red and blue: at 4:2:0 all would be the same purple."""
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, ::4], picture[:, 1::4] = (0, 0, 255), (0, 0, 255)
    picture[:, 2::4], picture[:, 3::4] = (255, 0, 0), (255, 0, 0)
    cv2.imwrite(str(tmp_path / "in.png"), picture)
    for suffix in (".png", ".jpg", ".webp"):
        go(tmp_path / "in.png", tmp_path / f"out{suffix}")
        found = read(tmp_path / f"out{suffix}")[16, 8:24].astype(int)
        assert (found[:, 2] - found[:, 0]).max() > 150
        assert (found[:, 0] - found[:, 2]).max() > 150


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_photo_comes_out_upright(orientation: int, suffix: str, tmp_path: Path) -> None:
    upright = gradient(3)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright[:, ::-1].swapaxes(0, 1)[:, ::1][::-1][::-1],
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: upright[::-1].swapaxes(0, 1),
    }[orientation]
    if orientation == 6:  # stored lying on its left side: turned clockwise to be seen
        stored = np.rot90(upright)
    if orientation == 8:
        stored = np.rot90(upright, -1)
    exif = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    written, data = cv2.imencodeWithMetadata(
        suffix,
        np.ascontiguousarray(stored),
        [cv2.IMAGE_METADATA_EXIF],
        [np.frombuffer(exif, np.uint8)],
    )
    assert written
    source.write_bytes(data.tobytes())
    go(source, target)
    found = read(target)
    assert found.shape == (80, 112, 3)
    assert found[10, 100, 2] > 200
    assert found[70, 100, 2] < 180
    still = read_still(target)  # nobody turns it once more
    assert still.pixels.shape == (80, 112, 3)
    assert still.exif is not None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_colour_profile_is_kept(suffix: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in.png", tmp_path / f"out{suffix}"
    profile = icc_profile()
    still = Still(np.ascontiguousarray(gradient(3)[..., ::-1]), profile)
    source.write_bytes(encode_still(still, source, Notes()))
    assert go(source, target).warnings == ()
    assert read_still(target).profile == profile


def test_what_a_form_cannot_hold_is_said(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), gradient(4, np.uint16))
    said = " ".join(go(tmp_path / "in.png", tmp_path / "out.jpg").warnings)
    assert "transparency is left out" in said
    assert "16 bits a sample become 8" in said
    assert "16 bits" in " ".join(go(tmp_path / "in.png", tmp_path / "out.webp").warnings)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".avif", ".bmp", ".tiff"])
def test_every_form_can_be_written_and_read(suffix: str, tmp_path: Path) -> None:
    if not cv2.haveImageWriter(f"a{suffix}"):
        pytest.skip(f"this OpenCV writes no {suffix}")
    cv2.imwrite(str(tmp_path / "in.png"), gradient(3))
    go(tmp_path / "in.png", tmp_path / f"out{suffix}")
    go(tmp_path / f"out{suffix}", tmp_path / "again.png", size=Size(SIDES[1], SIDES[0]))
    difference = np.abs(read(tmp_path / "again.png").astype(float) - gradient(3))
    assert difference.mean() < 4


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_that_was_cut_off_does_not_pass_for_whole(suffix: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    source = tmp_path / f"in{suffix}"
    cv2.imwrite(str(source), noise)
    assert go(source, tmp_path / "whole.png").cut_off is None
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    if suffix == ".png":  # no reader here gives a part of one
        with pytest.raises(MediaError, match=r"reading .*the picture is damaged or cut off"):
            go(source, tmp_path / "out.png")
        return
    result = go(source, tmp_path / "out.png")
    assert result.cut_off is not None
    assert "the picture is cut off" in result.cut_off
    assert read(tmp_path / "out.png").shape == (128, 128, 3)


def test_sequences_keep_their_numbers_and_name_their_gaps(tmp_path: Path) -> None:
    for number in (1001, 1002, 1004):
        cv2.imwrite(str(tmp_path / f"a{number}.png"), gradient(4))
    result = go(tmp_path / "a%d.png", tmp_path / "out" / "b%06d.png")
    assert result.pictures == 3
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["b001001.png", "b001002.png", "b001004.png"]
    assert "a1003.png" in " ".join(result.warnings)
    assert read(tmp_path / "out" / "b001001.png").shape[2] == 4


def test_a_gap_of_a_sequence_is_held_in_a_video(tmp_path: Path) -> None:
    for number in (1, 2, 3, 5):
        cv2.imwrite(str(tmp_path / f"{number:04d}.png"), gradient(3))
    target = tmp_path / "out.mp4"
    result = go(tmp_path / "%04d.png", target, fps=Fraction(10))
    assert times_of(target) == [0.0, 0.1, 0.2, 0.4]
    assert "0004.png" in " ".join(result.warnings)


def test_a_picture_that_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), gradient(3))
    (tmp_path / "2.png").write_bytes(b"no picture")
    result = go(tmp_path / "%d.png", tmp_path / "o%d.png")
    assert result.pictures == 2
    assert "2.png" in " ".join(result.warnings)
    assert (tmp_path / "o3.png").exists()


def test_an_empty_sequence_is_named(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"reading .*%04d\.png: no picture of this name is there"):
        go(tmp_path / "%04d.png", tmp_path / "out.mp4")


def test_a_sequence_can_be_stabilised(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", frames=5)
    go(clip, tmp_path / "a%d.png", size=Size(96, 64))
    result = go(tmp_path / "a%d.png", tmp_path / "b%d.png", stabilise=Stabilise.STRONG)
    assert result.pictures == 5
    assert read(tmp_path / "b5.png").shape == (128, 192, 3)


def test_sizes_that_a_form_cannot_hold_are_refused_before_work(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), np.full((8, 9000, 3), 90, np.uint8))
    with pytest.raises(MediaError, match=r"18000x16; no side of such a file may be over 16383"):
        go(tmp_path / "in.png", tmp_path / "out.webp")
    with pytest.raises(MediaError, match=r"18000x16, and no side of a video may be over 16384"):
        go(tmp_path / "in.png", tmp_path / "out.mp4")
    assert go(tmp_path / "in.png", tmp_path / "out.png").pictures == 1


def test_pictures_for_one_target_are_refused_before_work(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", frames=5)
    with pytest.raises(MediaError, match="numbered target"):
        go(clip, tmp_path / "out.png")
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_no_clobber_looks_at_every_picture_of_a_sequence(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", frames=3)
    (tmp_path / "o7.png").write_bytes(b"older")
    with pytest.raises(ConfigError, match=r"o7\.png is there already"):
        go(clip, tmp_path / "o%d.png", clobber=False)


def icc_profile() -> bytes:
    """The smallest profile that libpng takes: sRGB's header and no more than it needs."""
    tags = [
        (b"desc", b"desc" + bytes(4) + struct.pack(">I", 1) + bytes(80)),
        (b"wtpt", b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)),
        (b"rXYZ", b"XYZ " + bytes(4) + struct.pack(">3i", 28579, 14581, 912)),
        (b"gXYZ", b"XYZ " + bytes(4) + struct.pack(">3i", 25241, 46981, 6362)),
        (b"bXYZ", b"XYZ " + bytes(4) + struct.pack(">3i", 9376, 3974, 46799)),
    ]
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags:
        table += name + struct.pack(">2I", start + len(body), len(data))
        body += data
    length = start + len(body)
    head = struct.pack(">I4sI4s4s4s", length, b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


def test_the_pages_of_a_tiff_that_are_not_taken_are_said(tmp_path: Path) -> None:
    cv2.imwritemulti(str(tmp_path / "in.tiff"), [gradient(3), gradient(3), gradient(3)])
    result = go(tmp_path / "in.tiff", tmp_path / "out.png")
    assert result.warnings == ("only the first of 3 pages is taken",)


def test_a_heic_photo_is_refused_and_no_tile_of_it_taken_for_the_whole(tmp_path: Path) -> None:
    brands = b"mif1heic"
    (tmp_path / "in.heic").write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(4) + brands)
    with pytest.raises(MediaError, match=r"reading .*in\.heic: it is a HEIC photo"):
        go(tmp_path / "in.heic", tmp_path / "out.png")


def test_pictures_one_after_the_other_in_a_file_are_a_video(tmp_path: Path) -> None:
    one = cv2.imencode(".jpg", gradient(3))[1].tobytes()
    (tmp_path / "in.mjpeg").write_bytes(one * 5)
    assert go(tmp_path / "in.mjpeg", tmp_path / "out.mp4").pictures == 5


@pytest.mark.parametrize(
    ("picture", "key", "depth"),
    [
        (np.array([[0, 7], [255, 7]], np.uint8), (7,), 8),
        (np.array([[[1, 2, 3], [9, 9, 9]], [[1, 2, 4], [1, 2, 3]]], np.uint8), (1, 2, 3), 8),
        (np.array([[300, 7], [65535, 7]], np.uint16), (7,), 16),
        (np.array([[0, 85], [170, 255]], np.uint8), (1,), 2),
    ],
    ids=["grey", "RGB", "grey of 16 bits", "grey of 2 bits"],
)
def test_the_clear_colour_of_a_png_becomes_alpha(
    picture: Any, key: tuple[int, ...], depth: int, tmp_path: Path
) -> None:
    path = tmp_path / "in.png"
    path.write_bytes(png(picture, key, depth))
    alpha = read_still(path).pixels[..., -1]
    colour = np.array(key) * (85 if depth == 2 else 1)
    samples = picture if picture.ndim == 3 else picture[..., None]
    assert np.array_equal(alpha == 0, (samples == colour).all(-1))
    assert set(np.unique(alpha)) == {0, np.iinfo(picture.dtype).max}


def png(picture: Any, key: tuple[int, ...], depth: int) -> bytes:
    """A PNG with a tRNS chunk, which OpenCV does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    height, width = picture.shape[:2]
    colour_type = 2 if picture.ndim == 3 else 0
    if depth == 2:
        rows = [bytes([sum(int(v) // 85 << (6 - 2 * n) for n, v in enumerate(r))]) for r in picture]
    else:
        rows = [row.astype(f">u{depth // 8}").tobytes() for row in picture]
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
        + chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
        + chunk(b"IEND", b"")
    )


def test_opencv_says_nothing_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.png"
    data = cv2.imencode(".png", gradient(3))[1].tobytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match="cut off"):
        upscale_file(path, tmp_path / "out.png", Bicubic())
    assert capfd.readouterr().err == ""
