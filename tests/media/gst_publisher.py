"""Run by the system's Python: publishes a test picture by WHIP with GStreamer's webrtcbin.

Arguments: the WHIP address, for how many seconds, and the kinds in order, such as audio,video.
Needs PyGObject and GStreamer 1.22.
"""

import sys
import urllib.request
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

PEER = "webrtcbin name=peer bundle-policy=max-bundle "
VIDEO = (
    "videotestsrc is-live=true pattern=ball ! video/x-raw,width=512,height=512,framerate=25/1 ! "
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=50 bitrate=2000 ! "
    "video/x-h264,profile=constrained-baseline ! "
    "rtph264pay config-interval=-1 aggregate-mode=zero-latency ! "
    "application/x-rtp,media=video,encoding-name=H264,payload=96 ! peer. "
)
AUDIO = (
    "audiotestsrc is-live=true wave=ticks ! audioconvert ! audioresample ! opusenc ! rtpopuspay ! "
    "application/x-rtp,media=audio,encoding-name=OPUS,payload=97 ! peer. "
)


class Publisher:
    """Posts its offer when all candidates are gathered."""

    def __init__(self, url: str, seconds: float, kinds: str) -> None:
        self._url = url
        self._loop = GLib.MainLoop()
        self._pipeline = Gst.parse_launch(
            PEER + "".join({"video": VIDEO, "audio": AUDIO}[kind] for kind in kinds.split(","))
        )
        self._peer = self._pipeline.get_by_name("peer")
        self._peer.connect("on-negotiation-needed", self._negotiate)
        self._peer.connect("notify::ice-gathering-state", self._gathered)
        self._promises: list[Any] = []  # freed too early otherwise
        self._posted = False
        GLib.timeout_add(int(seconds * 1000), self._loop.quit)

    def run(self) -> None:
        self._pipeline.set_state(Gst.State.PLAYING)
        self._loop.run()
        self._pipeline.set_state(Gst.State.NULL)

    def _negotiate(self, _: Any) -> None:
        promise = Gst.Promise.new_with_change_func(self._offered)
        self._promises.append(promise)
        self._peer.emit("create-offer", None, promise)

    def _offered(self, promise: Any) -> None:
        reply = promise.get_reply()
        self._promises.append(reply)
        offer = reply.get_value("offer")
        self._promises.append(offer)
        self._peer.emit("set-local-description", offer, Gst.Promise.new())

    def _gathered(self, peer: Any, _: Any) -> None:
        state = peer.get_property("ice-gathering-state")
        if state == GstWebRTC.WebRTCICEGatheringState.COMPLETE and not self._posted:
            self._posted = True
            GLib.idle_add(self._post)

    def _post(self) -> bool:
        offer = self._peer.get_property("local-description").sdp.as_text()
        request = urllib.request.Request(
            self._url, offer.encode(), {"Content-Type": "application/sdp"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            text = response.read()
        _, sdp = GstSdp.SDPMessage.new_from_text(text.decode())
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        self._promises.append(answer)
        self._peer.emit("set-remote-description", answer, Gst.Promise.new())
        return False


if __name__ == "__main__":
    Gst.init(None)
    Publisher(sys.argv[1], float(sys.argv[2]), sys.argv[3]).run()
