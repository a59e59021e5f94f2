"""A publisher's session, as far as it needs no media."""

from __future__ import annotations

from tests.media.loopback import offer_of

from streamlift.clock import ManualClock
from streamlift.config import IceConfig, IngestConfig
from streamlift.media.incoming.whip_publisher import WhipPublisher
from streamlift.media.rtc.sdp import Role, read_offer


async def test_sound_that_was_dropped_is_counted_beside_the_pictures() -> None:
    publisher = WhipPublisher("s", IceConfig(), ingest=IngestConfig(), clock=ManualClock())
    await publisher.answer(read_offer(await offer_of("video", "audio"), Role.PUBLISH))
    try:
        assert publisher.counts.dropped == {}
        assert publisher._audio is not None
        publisher._audio.dropped.update({"late": 2, "stale": 1})
        assert publisher.counts.dropped == {"audio_late": 2, "audio_stale": 1}
    finally:
        await publisher.aclose("over")
        await publisher.run()
