"""A still picture of a coded stream: one keyframe, decoded and saved as JPEG."""

from __future__ import annotations

import av
import cv2
from av.video.codeccontext import VideoCodecContext

from streamlift.errors import MediaError
from streamlift.frames import Codec, EncodedFrame

__all__ = ["picture_as_jpeg"]

_DECODERS = {Codec.H264: "h264", Codec.VP8: "vp8"}
_QUALITY = 92


def picture_as_jpeg(keyframe: EncodedFrame) -> bytes:
    """Decode one keyframe and return it as a JPEG file. Raises MediaError if it does not decode."""
    decoder = av.CodecContext.create(_DECODERS[keyframe.rendition.codec], "r")
    assert isinstance(decoder, VideoCodecContext)
    try:
        pictures = [*decoder.decode(av.Packet(keyframe.data)), *decoder.decode(None)]
    except av.FFmpegError as error:
        raise MediaError(f"the newest keyframe does not decode: {error}") from error
    if not pictures:
        raise MediaError("the newest keyframe gave no picture")
    bgr = pictures[0].to_ndarray(format="bgr24")
    encoded, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not encoded:
        raise MediaError("the picture could not be saved as JPEG", found=bgr.shape)
    return jpeg.tobytes()
