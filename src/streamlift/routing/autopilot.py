"""Keeps a stream on the backend that its policy wants, as load and backends change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streamlift.frames import BackendInfo
from streamlift.routing.counts import Counts
from streamlift.routing.events import EventKind
from streamlift.routing.journal import Journal
from streamlift.routing.lanes import Lanes
from streamlift.routing.policy import Choice, Policy, Stepper, choose
from streamlift.routing.states import StreamState

__all__ = ["Autopilot"]

REVIEW_S = 1.0
OVERLOAD = 0.05
"""Share of frames dropped by lanes in a second that counts as overload."""


class Autopilot:
    """One stream's policy and what it has seen of the load. `infos` tells the backends now."""

    def __init__(
        self, policy: Policy, infos: Callable[[], Sequence[BackendInfo]], now_s: float
    ) -> None:
        self.policy = policy
        self._infos = infos
        self._stepper = Stepper()
        self._reviewed_s = now_s
        self._offered = 0
        self._dropped = 0

    def choose(self, fps: float | None, current: str | None) -> Choice | None:
        """The policy's choice now; None for `fixed`, or if there is none."""
        return choose(self.policy, self._infos(), fps, current=current)

    def set_policy(self, policy: Policy) -> None:
        """Follow another policy; what overloaded under the old one is forgotten."""
        self.policy = policy
        self._stepper = Stepper()

    def due(self, now_s: float) -> bool:
        """Whether it is time for a review: once a second."""
        return now_s - self._reviewed_s >= REVIEW_S

    def steer(self, now_s: float, lanes: Lanes, counts: Counts, journal: Journal) -> None:
        """Does the backend keep up, and would the policy choose another? Then move to that."""
        before = lanes.backend
        step = self.review(
            now_s,
            offered=counts.submitted_frames,
            dropped=counts.lane_drops(lanes.dropped),
            steady=journal.state is StreamState.LIVE and not lanes.preference.degraded,
            can_spend_less=lanes.can_spend_less,
            fps=counts.ingest.fps,
            current=before,
        )
        if step is not None:
            after, reason = step.backend, step.reason
            journal.tell(EventKind.POLICY_STEP, before=before, after=after, reason=reason)
            lanes.switch(after, None, f"policy {self.policy}: {reason}")

    def review(
        self,
        now_s: float,
        *,
        offered: int,
        dropped: int,
        steady: bool,
        can_spend_less: bool,
        fps: float | None,
        current: str,
    ) -> Choice | None:
        """The backend to step to, if any.

        `offered`, `dropped`: frames given to lanes and dropped by them since the stream began.
        `steady`: the stream is live on the backend it should be on; otherwise nothing is learned.
        `can_spend_less`: the lane still has cheaper ways of its own and takes them by itself; only
        when those are used up is it for another backend to help.
        """
        new_offered, new_dropped = offered - self._offered, dropped - self._dropped
        self._reviewed_s, self._offered, self._dropped = now_s, offered, dropped
        if not steady or new_offered <= 0:
            return None
        overloaded = new_dropped > OVERLOAD * new_offered
        if overloaded and can_spend_less:
            self._stepper.forget()
            return None
        self._stepper.observe(now_s, overloaded)
        return self._stepper.step(self.policy, self._infos(), fps, current, now_s)
