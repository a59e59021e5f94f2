"""Puts pictures on a stream's line of timestamps: a publisher's, and those made here."""

from __future__ import annotations

import dataclasses

from streamlift.frames import Frame
from streamlift.timeline import Timeline

__all__ = ["made_now", "placed"]


def placed(frame: Frame, line: Timeline) -> Frame:
    """A publisher's frame, its motion with it, and when it is due."""
    pts = line.place(frame.pts, frame.arrived_s)
    motion = None if frame.motion is None else frame.motion.placed(line.placed)
    return dataclasses.replace(frame, pts=pts, motion=motion, due_s=line.due_s)


def made_now(picture: Frame, line: Timeline, now_s: float) -> Frame:
    """A picture that no publisher sent at this moment: a slate, or the last one again."""
    pts = line.place_made(now_s)
    return dataclasses.replace(
        picture, pts=pts, arrived_s=now_s, coded=None, motion=None, due_s=None
    )
