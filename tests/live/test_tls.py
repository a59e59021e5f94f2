"""HTTPS, which browsers on other machines need for their cameras."""

from __future__ import annotations

import asyncio
import itertools
import threading
from pathlib import Path

import pytest
from tests.clips import picture
from tests.serving import light, serving

from streamlift.clock import MonotonicClock
from streamlift.config import Config, ServerConfig
from streamlift.frames import Size
from streamlift.media.files.clips import paced
from streamlift.media.remote.client import WhipClient
from streamlift.media.remote.http import Signalling, Unreachable
from streamlift.media.remote.measure import measure_whep

pytestmark = pytest.mark.peer


async def test_publishing_and_watching_on_this_machine_take_any_certificate(
    certificate: tuple[Path, Path],
) -> None:
    async with serving(_with(certificate), tls=True) as service:
        clock = MonotonicClock()
        client = WhipClient(Size(256, 256), 25, 1_000_000, clock=clock)
        watched = threading.Event()  # a source that ends earlier may end before it was seen
        numbers = itertools.takewhile(lambda _: not watched.is_set(), itertools.count())
        pictures = (picture(Size(256, 256), number) for number in numbers)
        async with asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(
                client.run(
                    service.whip(), None, paced(pictures, 25, clock=clock), on_live=lambda: None
                )
            )
            await service.live()
            figures = await measure_whep(service.whep(), None, 0.5, scale=2, clock=clock)
            watched.set()
            assert await publishing == "the source ended"
    assert figures.frames > 3
    assert figures.size == Size(512, 512)


async def test_a_certificate_of_another_machine_is_checked(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamlift.media.remote.http._is_loopback", lambda url: False)
    async with (
        serving(_with(certificate), tls=True) as service,
        Signalling(service.whep(), None) as signalling,
    ):
        with pytest.raises(Unreachable, match="certificate"):
            await signalling.post("v=0")


def _with(certificate: tuple[Path, Path]) -> Config:
    cert, key = map(str, certificate)
    return light(server=ServerConfig(tls_cert=cert, tls_key=key))
