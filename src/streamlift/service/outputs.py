"""Pushes and recordings: the table of outputs, and their lives."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from streamlift.clock import Clock
from streamlift.config import IceConfig, OutputsConfig
from streamlift.errors import Overloaded, StreamliftError, UnknownOutput
from streamlift.frames import Codec
from streamlift.media.files.record import Recorder, recording_directory
from streamlift.media.outgoing.packetizer import Packetizer
from streamlift.media.remote.push import Push
from streamlift.media.remote.url_safety import Resolve, resolve_name
from streamlift.media.targets.camera import CameraPush
from streamlift.metrics import Metrics
from streamlift.routing import Cursor, EventKind
from streamlift.service.parts import Parts
from streamlift.service.pushes import Pushes, PushOrder

__all__ = [
    "FAILED_SHOWN_S",
    "CameraPush",
    "Output",
    "Outputs",
    "Push",
    "Recorder",
    "run_output",
]

logger = logging.getLogger(__name__)

MAX_OUTPUTS = 8
"""Of one stream: each costs what a viewer costs, and a connection that is tried for ever."""
FAILED_SHOWN_S = 300.0
"""How long an output that failed can still be read, with its reason."""


@dataclass(slots=True, eq=False)
class Output:
    """One output of one stream."""

    stream: str
    work: Push | Recorder
    id: str = field(default_factory=lambda: secrets.token_urlsafe(6))
    error: str = ""
    """Why it ended before its stream did."""
    ended_s: float | None = None
    """When it ended; None while it runs."""
    task: asyncio.Task[None] | None = None

    @property
    def kind(self) -> str:
        """whip, rtmp, rtsp, v4l2 or file."""
        return self.work.kind if isinstance(self.work, Push) else "file"

    @property
    def state(self) -> str:
        """Of a push its own states, of a recording live, failed or closed."""
        if isinstance(self.work, Push):
            return self.work.state
        return "failed" if self.error else "live" if self.ended_s is None else "closed"

    @property
    def over(self) -> bool:
        return self.ended_s is not None


class Outputs:
    """Makes outputs and remembers them by stream; `run_output` runs them.

    An output that ended is forgotten, one that failed after `FAILED_SHOWN_S`.
    """

    def __init__(
        self,
        config: OutputsConfig,
        *,
        clock: Clock,
        packetizer: Packetizer,
        resolve: Resolve = resolve_name,
    ) -> None:
        """Raises ConfigError when `allowed_hosts`, `push` or `save` cannot be used."""
        self.config = config
        self._pushes = Pushes(config, clock=clock, packetizer=packetizer, resolve=resolve)
        self._directory: Path | None = recording_directory(config.save) if config.save else None
        self._clock = clock
        self._outputs: dict[str, list[Output]] = {}

    @property
    def saves(self) -> bool:
        return self._directory is not None

    def __iter__(self) -> Iterator[Output]:
        return iter([output for stream in tuple(self._outputs) for output in self.of(stream)])

    def of(self, stream: str) -> tuple[Output, ...]:
        """The stream's outputs, oldest first; those whose time is over are forgotten here."""
        long_ago_s = self._clock.now_s() - FAILED_SHOWN_S
        self._keep(
            stream,
            [
                output
                for output in self._outputs.get(stream, ())
                if output.ended_s is None or (output.error and output.ended_s > long_ago_s)
            ],
        )
        return tuple(self._outputs.get(stream, ()))

    def get(self, stream: str, output: str) -> Output:
        """Raises UnknownOutput."""
        for known in self.of(stream):
            if known.id == output:
                return known
        raise UnknownOutput(
            f"stream {stream!r} has no such output",
            found=output,
            expected=[known.id for known in self.of(stream)],
        )

    def push(self, stream: str, order: PushOrder, *, ice: IceConfig, metrics: Metrics) -> Output:
        """A new push. Raises ConfigError when it is not allowed, Overloaded."""
        work = self._pushes.make(stream, order, ice=ice, metrics=metrics)
        return self._add(Output(stream, work))

    def record(self, stream: str) -> Output:
        """A new recording; only where `saves`."""
        assert self._directory is not None
        return self._add(Output(stream, Recorder(stream, self._directory)))

    def end(self, output: Output) -> None:
        """Stop it; it is forgotten at once and closes what it has open."""
        self._keep(output.stream, [o for o in self.of(output.stream) if o is not output])
        if output.task is not None:
            output.task.cancel()

    def end_pushes(self) -> None:
        """Stop all pushes; recordings end with their streams."""
        for output in self:
            if isinstance(output.work, Push):
                self.end(output)

    def ended(self, output: Output, error: str = "") -> None:
        """It has ended by itself, or failed with `error`."""
        output.error, output.ended_s = error, self._clock.now_s()
        for stream in tuple(self._outputs):
            self.of(stream)  # no stream's failures wait for a reader to be forgotten

    def _add(self, output: Output) -> Output:
        # What failed stays to be read, but not in the way of another try.
        known = [former for former in self.of(output.stream) if not former.over]
        if len(known) >= MAX_OUTPUTS:
            raise Overloaded(
                f"stream {output.stream!r} has enough outputs; delete one first",
                found=len(known),
                expected=f"fewer than {MAX_OUTPUTS}",
            )
        over = [former for former in self.of(output.stream) if former.over]
        self._keep(output.stream, [*over[-MAX_OUTPUTS:], *known, output])
        return output

    def _keep(self, stream: str, outputs: list[Output]) -> None:
        if outputs:
            self._outputs[stream] = outputs
        else:
            self._outputs.pop(stream, None)


async def run_output(parts: Parts, outputs: Outputs, output: Output) -> None:
    """The life of an output; how it ends is told in the table, in the events and in metrics."""
    try:
        await _work(parts, output)
    except StreamliftError as error:
        outputs.ended(output, str(error))
        if isinstance(output.work, Recorder):
            parts.metrics.count("recording_errors_total")
        parts.events.add(EventKind.FAULT, stream=output.stream, reason=str(error))
    finally:
        if not output.over:
            outputs.ended(output)


async def _work(parts: Parts, output: Output) -> None:
    stream, work = output.stream, output.work
    if isinstance(work, Recorder):
        await work.run(
            lambda: parts.router.watch(stream),
            lambda: parts.listening(stream),
            lambda: parts.has_sound(stream),
        )
        return

    def watch() -> AbstractContextManager[Cursor]:
        return parts.router.watch(stream, codec=Codec.H264)

    await work.run(watch, lambda: parts.listening(stream), lambda: parts.has_sound(stream))
