"""Pulled streams: the table of them, what the operator allows, and their lives."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from streamlift.clock import Clock
from streamlift.config import IceConfig, SourcesConfig
from streamlift.errors import (
    ConfigError,
    NoParameters,
    Overloaded,
    StreamliftError,
    UnknownStream,
)
from streamlift.media.remote.daydream import DaydreamSource
from streamlift.media.remote.fetch import Fetcher
from streamlift.media.remote.pull import PullPublisher, PullState, Source
from streamlift.media.remote.pull_scope import ScopeSource
from streamlift.media.remote.pull_url import UrlSource
from streamlift.media.remote.pull_whep import WhepSource, check_token
from streamlift.media.remote.url_safety import HostRules, Resolve, resolve_name
from streamlift.service.parts import Parts

__all__ = ["PullPublisher", "PullState", "Pulls", "Source", "run_pull"]

MAX_PULLS = 64


class Pulls:
    """Makes pulls and remembers them by stream; one that failed stays to be read."""

    def __init__(
        self,
        config: SourcesConfig,
        ice: IceConfig,
        *,
        max_side: int,
        clock: Clock,
        resolve: Resolve = resolve_name,
    ) -> None:
        """Raises ConfigError for an `allowed_hosts` or a `daydream_key` that cannot be used."""
        check_token("daydream_key", config.daydream_key)
        self._config = config
        self._rules = HostRules(config.allowed_hosts)
        self._ice = ice
        self._max_side = max_side
        self._clock = clock
        self._resolve = resolve
        self._pulls: dict[str, PullPublisher] = {}

    def whep(self, stream: str, url: str, token: str | None) -> WhepSource:
        """Raises ConfigError when the URL is not allowed."""
        return WhepSource(
            stream,
            url,
            token,
            fetcher=self._fetcher,
            rules=self._rules,
            ice=self._ice,
            max_side=self._max_side,
            clock=self._clock,
        )

    def daydream(self, stream: str, stream_id: str) -> DaydreamSource:
        """Raises ConfigError without a key, or when daydream's host is not allowed."""
        if not self._config.daydream_key:
            raise ConfigError(
                "there is no daydream key; set STREAMLIFT_SOURCES__DAYDREAM_KEY and restart",
                expected="sources.daydream_key",
            )
        self._rules.check(self._config.daydream_url)
        return DaydreamSource(
            stream_id,
            self._config.daydream_key,
            base_url=self._config.daydream_url,
            fetcher=self._fetcher,
            whep=lambda url: self.whep(stream, url, None),
        )

    def url(self, stream: str, url: str, *, loop: bool = False) -> UrlSource:
        """Raises ConfigError when such pulls are off, or when this URL is not allowed."""
        config = self._config
        if not config.url:
            raise ConfigError(
                "URLs are not pulled here; the operator can set `sources.url: on`",
                found="sources.url: off",
                expected="sources.url: on",
            )
        return UrlSource(
            stream,
            url,
            loop=loop,
            hosts=config.allowed_hosts,
            listen=config.udp,
            directories=config.directories,
            max_side=self._max_side,
            clock=self._clock,
        )

    def scope(
        self,
        stream: str,
        url: str,
        pipeline: str,
        *,
        load_params: Mapping[str, Any],
        parameters: Mapping[str, Any],
    ) -> ScopeSource:
        """Raises ConfigError when the URL is not allowed."""
        return ScopeSource(
            stream,
            url,
            pipeline,
            load_params=load_params,
            parameters=parameters,
            fetcher=self._fetcher,
            rules=self._rules,
            ice=self._ice,
            max_side=self._max_side,
            clock=self._clock,
        )

    def add(self, stream: str, source: Source) -> PullPublisher:
        """A publisher for the stream; the caller runs it. Raises Overloaded."""
        over = (PullState.FAILED, PullState.CLOSED)
        ended = [name for name, pull in self._pulls.items() if pull.status.state in over]
        if len(self._pulls) - len(ended) >= MAX_PULLS:
            raise Overloaded(
                "too many streams are pulled; end one first",
                found=MAX_PULLS,
                expected=f"fewer than {MAX_PULLS}",
            )
        for name in ended[: max(0, len(self._pulls) - MAX_PULLS + 1)]:
            del self._pulls[name]
        pull = PullPublisher(stream, source, clock=self._clock)
        self._pulls[stream] = pull
        return pull

    def get(self, stream: str) -> PullPublisher:
        """Raises UnknownStream when that stream is not pulled."""
        try:
            return self._pulls[stream]
        except KeyError:
            raise UnknownStream(
                f"stream {stream!r} is not pulled from anywhere",
                found=stream,
                expected=sorted(self._pulls),
            ) from None

    def change(self, stream: str, parameters: Mapping[str, Any]) -> PullPublisher:
        """Pass parameters on; they hold for later connections, too.

        Raises UnknownStream, or NoParameters when the source takes none.
        """
        pull = self.get(stream)
        if not isinstance(pull.source, ScopeSource):
            raise NoParameters(
                f"a source of kind {pull.source.kind} takes no parameters",
                found=pull.source.kind,
                expected="scope",
            )
        pull.source.set_parameters(parameters)
        return pull

    def forget(self, stream: str, pull: PullPublisher) -> None:
        """The pull has ended; unless it failed, nothing is left to tell."""
        if self._pulls.get(stream) is pull and pull.status.state is not PullState.FAILED:
            del self._pulls[stream]

    def _fetcher(self) -> Fetcher:
        return Fetcher(self._rules, resolve=self._resolve)


async def run_pull(parts: Parts, pulls: Pulls, pull: PullPublisher) -> None:
    """The life of a pull: its connections beside its place in the stream."""
    try:
        with parts.audio.use(pull.stream) as relay:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(pull.run())
                tasks.create_task(relay.run(pull.sound))
                try:
                    # A source may be away, or load its model, longer than viewers are kept else.
                    await parts.router.publish(pull.stream, pull, lasting=True)
                except StreamliftError as error:
                    pull.fail(str(error))
                finally:
                    await pull.aclose("stream ended")
    finally:
        pull.seated.set()
        pulls.forget(pull.stream, pull)
