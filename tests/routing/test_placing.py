"""Pictures on a stream's line: what they say of each other stays true there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tests.routing.fakes import frame

from streamlift.frames import Motion
from streamlift.routing.placing import made_now, placed
from streamlift.timeline import Timeline

VECTORS = np.zeros(0, np.dtype([("source", np.int32)]))


def test_motion_leads_to_the_frame_before_whatever_the_publisher_s_clock_says() -> None:
    line = Timeline()
    before = placed(frame(777_000, 1.0), line)
    moving = replace(frame(780_600, 1.04), motion=Motion(VECTORS, 777_000))
    after = placed(moving, line)
    assert after.motion is not None
    assert (before.pts, after.pts, after.motion.follows) == (0, 3600, before.pts)


def test_motion_over_frames_that_never_came_here_leads_to_the_last_that_did() -> None:
    line = Timeline()
    before = placed(frame(777_000, 1.0), line)
    chain = Motion(VECTORS, 780_600, before=Motion(VECTORS, 777_000))
    after = placed(replace(frame(784_200, 1.08), motion=chain), line)
    assert after.motion is not None
    assert after.motion.before is not None
    assert after.motion.before.follows == before.pts


def test_a_made_picture_has_no_motion_and_is_due_at_once() -> None:
    line = Timeline()
    last = placed(replace(frame(0, 1.0), motion=Motion(VECTORS, 5)), line)
    again = made_now(last, line, 3.0)
    assert (again.motion, again.coded, again.late_after_s) == (None, None, 3.0)
    assert again.pts == 180_000
