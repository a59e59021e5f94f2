"""What is counted and measured of one stream: frames, rates and latencies per stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from streamlift.frames import EncodedFrame, Frame
from streamlift.metrics import Metrics, Quantiles
from streamlift.routing.ports import IngestCounts, Publisher
from streamlift.routing.rate import Rate
from streamlift.routing.status import (
    FrameCounts,
    LatencySnapshot,
    OutputSnapshot,
    PublisherSnapshot,
)

__all__ = ["STAGES", "Counts"]

SHOWN_S = 3.0
"""After this long without a picture there is no rate to speak of."""
STAGES = ("decode", "queue", "upscale", "encode", "send", "total")


class Counts:
    """Counts what passes; publishers and lanes keep their own counts, which are added up here.

    Metrics fed: `frames_total{stage}` for received, decoded, submitted, upscaled and encoded,
    `frames_dropped_total{stage,reason}` for ingest, stream and lane,
    `stage_duration_seconds{stage,backend}` and `stream_latency_seconds`.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._latency = {stage: Quantiles() for stage in STAGES}
        self._dropped: Counter[str] = Counter()
        self._past_ingest: Counter[str] = Counter()  # dropped by publishers that are gone
        self._past_lanes: Counter[str] = Counter()  # and by lanes
        self._past_upscaled = 0  # by lanes that are gone
        self._told: Counter[tuple[str, str]] = Counter()  # to the metrics, of others' counts
        self._past_received = 0
        self._past_decoded = 0
        self._encoded = 0
        self.submitted_frames = 0
        self.ingest = Rate()
        self.egress = Rate()
        self.last_in: Frame | None = None
        self.last_out: EncodedFrame | None = None
        self.retarget_gap_s: float | None = None
        """Between the last picture of one target size and the first of the next."""
        self._sent_s = float("-inf")

    @property
    def shown_frames(self) -> int:
        """Of the default rendition, that went out."""
        return self._encoded

    def showing(self, now_s: float) -> bool:
        """Whether pictures have gone out lately."""
        return now_s - self._sent_s <= SHOWN_S

    def submitted(self, frame: Frame) -> None:
        self.last_in = frame
        self.submitted_frames += 1
        self.ingest.observe(frame.pts)
        self._metrics.count("frames_total", stage="submitted")

    def sent(self, encoded: EncodedFrame, now_s: float, backend: str) -> None:
        """A frame of the default rendition goes out to the viewers."""
        self._encoded += 1
        before = self.last_out
        if before is not None and before.rendition.target != encoded.rendition.target:
            self.retarget_gap_s = now_s - self._sent_s
        self.last_out, self._sent_s = encoded, now_s
        self.egress.observe(encoded.pts, len(encoded.data))
        stages = encoded.stages
        total_s = now_s - encoded.arrived_s
        durations = {
            "decode": stages.decode_s,
            "queue": stages.queue_s,
            "upscale": stages.upscale_s,
            "encode": stages.encode_s,
        }
        durations["send"] = max(0.0, total_s - sum(durations.values()))
        for stage, seconds in durations.items():
            self._latency[stage].observe(seconds)
            self._metrics.observe("stage_duration_seconds", seconds, stage=stage, backend=backend)
        self._latency["total"].observe(total_s)
        self._metrics.observe("stream_latency_seconds", total_s)
        self._metrics.count("frames_total", stage="encoded")

    def drop(self, reason: str, amount: int = 1) -> None:
        """Frames that the stream itself did not pass on."""
        self._dropped[reason] += amount
        self._metrics.count("frames_dropped_total", amount, stage="stream", reason=reason)

    def publisher_gone(self, publisher: Publisher) -> None:
        """Keep the counts of a publisher that ended."""
        counts = publisher.counts
        self._past_received += counts.received
        self._past_decoded += counts.decoded
        self._past_ingest.update(counts.dropped)

    def lane_gone(self, upscaled: int, dropped: Mapping[str, int]) -> None:
        """Keep what a lane upscaled and dropped that is closing now."""
        self._past_upscaled += upscaled
        self._past_lanes.update(dropped)

    def lane_drops(self, lanes: Mapping[str, int]) -> int:
        """All that lanes ever dropped, given the drops of the present ones."""
        return self._past_lanes.total() + sum(lanes.values())

    def losses(self, lanes: Mapping[str, int]) -> int:
        """The same without what was more than the stream's share: of that nobody else is guilty."""
        return self.lane_drops(lanes) - self._past_lanes["over_share"] - lanes.get("over_share", 0)

    def report(self, ingest: IngestCounts | None, upscaled: int, lanes: Mapping[str, int]) -> None:
        """Bring the metrics up to what publishers and lanes have counted; as for `frames`."""
        counts = self.frames(ingest, upscaled, lanes)
        stages = {"received": counts.received, "decoded": counts.decoded}
        for stage, frames in (stages | {"upscaled": counts.upscaled}).items():
            self._tell(frames, "frames_total", stage)
        dropped = {
            "ingest": self._past_ingest + Counter(ingest.dropped if ingest is not None else {}),
            "lane": self._past_lanes + Counter(lanes),
        }
        for stage, reasons in dropped.items():
            for reason, frames in reasons.items():
                self._tell(frames, "frames_dropped_total", stage, reason)

    def _tell(self, total: int, name: str, stage: str, reason: str = "") -> None:
        new = total - self._told[stage, reason]
        if new > 0:
            self._told[stage, reason] = total
            labels = {"stage": stage, "reason": reason} if reason else {"stage": stage}
            self._metrics.count(name, new, **labels)

    def frames(
        self, ingest: IngestCounts | None, upscaled: int, lanes: Mapping[str, int]
    ) -> FrameCounts:
        """The counts now: `ingest` of the present publisher, what the present lanes upscaled (two
        of them during a switch) and dropped."""
        dropped = self._past_ingest + self._past_lanes + self._dropped
        dropped.update(lanes)
        received, decoded = self._past_received, self._past_decoded
        if ingest is not None:
            received, decoded = received + ingest.received, decoded + ingest.decoded
            dropped.update(ingest.dropped)
        return FrameCounts(
            received=received,
            decoded=decoded,
            upscaled=self._past_upscaled + upscaled,
            encoded=self._encoded,
            dropped={reason: n for reason, n in sorted(dropped.items()) if n},
        )

    def publisher(self) -> PublisherSnapshot | None:
        frame = self.last_in
        if frame is None:
            return None
        codec = frame.coded.codec if frame.coded is not None else None
        return PublisherSnapshot(codec, frame.size, self.ingest.fps)

    def output(self, now_s: float) -> OutputSnapshot:
        """What goes out; without rates while nothing does."""
        size = self.last_out.size if self.last_out is not None else None
        if not self.showing(now_s):
            return OutputSnapshot(size, None, None, ())
        return OutputSnapshot(size, self.egress.fps, self.egress.bitrate_bps, ())

    def latency_ms(self) -> dict[str, LatencySnapshot]:
        """Stages that have been measured; none before the first frame went out."""
        return {
            stage: LatencySnapshot(round(p50 * 1000, 3), round(p95 * 1000, 3))
            for stage, values in self._latency.items()
            if (p50 := values.quantile(0.5)) is not None
            and (p95 := values.quantile(0.95)) is not None
        }
