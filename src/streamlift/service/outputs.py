"""The table of outputs: which stream is pushed where, and which is recorded."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from streamlift.clock import Clock
from streamlift.config import IceConfig, OutputsConfig
from streamlift.errors import Overloaded, UnknownOutput
from streamlift.media.files.record import Recorder, recording_directory
from streamlift.media.outgoing.packetizer import Packetizer
from streamlift.media.remote.fetch import Fetcher
from streamlift.media.remote.push import WhipPush
from streamlift.media.remote.url_safety import HostRules, Resolve, resolve_name

__all__ = ["Output", "Outputs"]

MAX_OUTPUTS = 8
"""Of one stream: each costs what a viewer costs, and a connection that is tried for ever."""


@dataclass(slots=True, eq=False)
class Output:
    """One output of one stream."""

    stream: str
    work: WhipPush | Recorder
    id: str = field(default_factory=lambda: secrets.token_urlsafe(6))
    error: str = ""
    """Why it ended before its stream did."""
    ended: bool = False
    task: asyncio.Task[None] | None = None

    @property
    def kind(self) -> str:
        """whip or file."""
        return "whip" if isinstance(self.work, WhipPush) else "file"

    @property
    def state(self) -> str:
        """Of a push its own states, of a recording live, failed or closed."""
        if isinstance(self.work, WhipPush):
            return self.work.state
        return "failed" if self.error else "closed" if self.ended else "live"

    @property
    def over(self) -> bool:
        return bool(self.error) or self.ended


class Outputs:
    """Makes outputs and remembers them by stream; who runs them is the caller's business."""

    def __init__(
        self,
        config: OutputsConfig,
        *,
        clock: Clock,
        packetizer: Packetizer,
        resolve: Resolve = resolve_name,
    ) -> None:
        """Raises ConfigError when `allowed_hosts` or `save` cannot be used."""
        self.config = config
        self._rules = HostRules(config.allowed_hosts, "outputs.allowed_hosts")
        self._directory: Path | None = recording_directory(config.save) if config.save else None
        self._clock = clock
        self._packetizer = packetizer
        self._resolve = resolve
        self._outputs: dict[str, list[Output]] = {}
        for push in config.push:
            self._rules.check(push.url)

    @property
    def saves(self) -> bool:
        return self._directory is not None

    def __iter__(self) -> Iterator[Output]:
        return iter([output for known in self._outputs.values() for output in known])

    def of(self, stream: str) -> tuple[Output, ...]:
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

    def push(
        self,
        stream: str,
        url: str,
        token: str | None,
        *,
        ice: IceConfig,
        retried: Callable[[], None],
    ) -> Output:
        """A new push; `retried` is called when a connection failed.

        Raises ConfigError when the URL is not allowed, Overloaded."""
        self._rules.check(url)
        work = WhipPush(
            stream,
            url,
            token,
            ice=ice,
            fetcher=lambda: Fetcher(self._rules, resolve=self._resolve),
            packetizer=self._packetizer,
            clock=self._clock,
            on_retry=retried,
        )
        return self._add(Output(stream, work))

    def record(self, stream: str) -> Output:
        """A new recording; only where `saves`."""
        assert self._directory is not None
        return self._add(Output(stream, Recorder(stream, self._directory)))

    def end(self, output: Output) -> None:
        """Stop it; it is forgotten at once and closes what it has open."""
        self.remove(output)
        if output.task is not None:
            output.task.cancel()

    def end_pushes(self) -> None:
        """Stop all pushes; recordings end with their streams."""
        for output in self:
            if isinstance(output.work, WhipPush):
                self.end(output)

    def remove(self, output: Output) -> None:
        kept = [known for known in self.of(output.stream) if known is not output]
        if kept:
            self._outputs[output.stream] = kept
        else:
            self._outputs.pop(output.stream, None)

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
        self._outputs[output.stream] = [*over[-MAX_OUTPUTS:], *known, output]
        return output
