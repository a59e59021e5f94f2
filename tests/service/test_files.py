"""Files that are uploaded and upscaled: bounds, rights, the result, and nothing left behind."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from tests.api.conftest import client_of
from tests.serving import light
from tests.waiting import until

from streamlift.app import create_app
from streamlift.config import AuthConfig, FilesConfig, TokenConfig
from streamlift.service import Service
from streamlift.service import files as files_module

FILES = "/api/v1/files"


def png(width: int = 32, height: int = 16) -> bytes:
    picture = np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return cv2.imencode(".png", picture)[1].tobytes()


@asynccontextmanager
async def started(
    tmp_path: Path, files: FilesConfig | None = None, **changes: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    files = dataclasses.replace(files or FilesConfig(), directory=str(tmp_path))
    app = create_app(light(files=files, **changes))
    async with app.router.lifespan_context(app), client_of(app) as http:
        yield http, app.state.service
    assert os.listdir(tmp_path) == [], "files were left behind"


async def post(http: httpx.AsyncClient, body: Any, name: str = "a.png", **query: Any) -> Any:
    return await http.post(
        FILES, params={"name": name, "upscaler": "bicubic", **query}, content=body
    )


async def ended(http: httpx.AsyncClient, job: str) -> Any:
    found: dict[str, Any] = {}

    async def look() -> bool:
        found.update((await http.get(f"{FILES}/{job}")).json())
        return found["state"] in ("done", "failed")

    await until(look, "the job to end", timeout_s=60, show=lambda: found)
    return found


async def test_without_the_section_no_file_is_taken() -> None:
    app = create_app(light())
    async with app.router.lifespan_context(app), client_of(app) as http:
        answer = await post(http, png())
        assert (answer.status_code, answer.json()["found"]) == (403, "no files")


async def test_a_picture_is_upscaled_and_fetched_and_removed(tmp_path: Path) -> None:
    async with started(tmp_path) as (http, _):
        answer = await post(http, png(), name="Urlaub am Meer.png", scale=3)
        assert answer.status_code == 201
        job = answer.json()
        assert answer.headers["Location"].endswith(f"{FILES}/{job['id']}")
        found = await ended(http, job["id"])
        assert (found["state"], found["reason"], found["pictures"]) == ("done", "", 1)
        result = await http.get(f"{FILES}/{job['id']}/result")
        assert "Urlaub%20am%20Meer-upscaled.png" in result.headers["Content-Disposition"]
        picture = cv2.imdecode(np.frombuffer(result.content, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape[:2] == (48, 96)
        assert found["bytes"] == len(result.content)
        assert 'streamlift_files_total{result="done"} 1.0' in (await http.get("/metrics")).text
        assert (await http.delete(f"{FILES}/{job['id']}")).status_code == 204
        assert (await http.get(f"{FILES}/{job['id']}")).status_code == 404
        assert (await http.get(FILES)).json() == {"files": []}


async def test_the_settings_of_the_service_are_none_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLIFT_DEFAULT_BACKEND", "one-of-a-file-that-the-job-does-not-read")
    async with started(tmp_path) as (http, _):
        job = (await post(http, png())).json()["id"]
        assert (await ended(http, job))["state"] == "done"


async def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with started(tmp_path) as (http, service):
        monkeypatch.setattr(files_module, "_receive", full)
        answer = await post(http, png())
        assert (answer.status_code, answer.json()["found"]) == (507, "No space left on device")
        assert service.files.jobs == ()


async def test_what_is_no_video_or_picture_is_refused_unopened(tmp_path: Path) -> None:
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    async with started(tmp_path) as (http, _):
        for body in (playlist, b"ffconcat version 1.0\nfile /etc/passwd\n", b"", b"short"):
            answer = await post(http, body, name="a.mp4")
            assert answer.status_code == 422
            assert "MP4" in answer.json()["expected"]
        assert (await http.get(FILES)).json() == {"files": []}


async def test_a_damaged_file_fails_with_its_reason(tmp_path: Path) -> None:
    async with started(tmp_path) as (http, _):
        job = (await post(http, png()[:60])).json()
        found = await ended(http, job["id"])
        assert found["state"] == "failed"
        assert found["reason"]
        answer = await http.get(f"{FILES}/{job['id']}/result")
        assert (answer.status_code, answer.json()["found"]) == (409, "failed")


async def test_a_file_may_be_larger_than_other_bodies_up_to_its_own_bound(tmp_path: Path) -> None:
    async def chunks(count: int) -> AsyncIterator[bytes]:
        yield b"\x89PNG\r\n\x1a\n" + bytes(56)
        for _ in range(count):
            yield bytes(100_000)

    async with started(tmp_path, FilesConfig(largest_mb=1)) as (http, _):
        answer = await post(http, bytes(8) + bytes(1_000_000))
        assert (answer.status_code, answer.json()["status"]) == (413, 413)
        assert (await post(http, chunks(9))).status_code == 201
        assert (await post(http, chunks(11))).status_code == 413, "no length was told"
        assert (await http.post("/whip/a", content=bytes(70_000))).status_code in (413, 415)


async def test_as_many_are_held_as_are_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamlift.service.files._COMMAND", ("-c", "pass"))
    async with started(tmp_path, FilesConfig(jobs=1)) as (http, _):
        first = (await post(http, png())).json()
        answer = await post(http, png())
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        await ended(http, first["id"])
        assert (await post(http, png())).status_code == 503, "its result is still here"
        await http.delete(f"{FILES}/{first['id']}")
        assert (await post(http, png())).status_code == 201


async def test_a_result_is_forgotten_after_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamlift.service.files._COMMAND", ("-c", "pass"))
    async with started(tmp_path, FilesConfig(kept_s=1)) as (http, service):
        job = (await post(http, png())).json()
        await ended(http, job["id"])
        (held,) = service.files.jobs
        assert held.ended_s is not None
        held.ended_s -= 2
        await service.files.forget_old()
        assert service.files.jobs == ()


async def test_one_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamlift.service.files._COMMAND", ("-c", "import time; time.sleep(99)"))
    async with started(tmp_path, FilesConfig(longest_s=1)) as (http, _):
        job = (await post(http, png())).json()
        found = await ended(http, job["id"])
        assert "files.longest_s" in found["reason"]


async def test_a_file_that_is_removed_or_a_service_that_ends_takes_its_process_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamlift.service.files._COMMAND", ("-c", "import time; time.sleep(99)"))
    async with started(tmp_path) as (http, service):
        jobs = [(await post(http, png())).json() for _ in range(2)]
        first, second = service.files.jobs
        await until(lambda: first.process is not None, "the first to be worked on")
        assert (await http.delete(f"{FILES}/{jobs[0]['id']}")).status_code == 204
        await until(lambda: second.process is not None, "the second to be worked on")
        assert first.process is not None
        assert first.process.returncode is not None
    assert second.process is not None
    assert second.process.returncode is not None


async def test_only_a_control_token_for_all_streams_may(tmp_path: Path) -> None:
    some = TokenConfig("some", streams=("a",))
    auth = AuthConfig(publish=("p",), view=("v",), control=("c", some))
    async with started(tmp_path, auth=auth) as (http, _):
        for token, status in (("v", 403), ("some", 403), ("c", 200)):
            headers = {"Authorization": f"Bearer {token}"}
            assert (await http.get(FILES, headers=headers)).status_code == status


async def test_over_a_real_connection_a_large_file_comes_whole_and_holds_nobody_up(
    tmp_path: Path, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamlift.service.files._COMMAND", ("-c", "import time; time.sleep(99)"))
    served = await serve(light(files=FilesConfig(directory=str(tmp_path))))
    body = b"\x89PNG\r\n\x1a\n" + bytes(3_000_000)
    async with served.http() as http:
        sending = asyncio.create_task(post(http, body))
        others = 0
        while not sending.done():
            assert (await http.get("/healthz")).status_code == 200
            others += 1
        assert (await sending).status_code == 201
        (job,) = served.parts.files.jobs
        assert job.source.stat().st_size == len(body)
        assert others > 1, "others had to wait for the upload"
