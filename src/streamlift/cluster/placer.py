"""The process that talks to Ray for an anchor: `python -m streamlift.cluster.placer`.

An anchor must not import ray: Ray ends its own processes some time after the head is gone, with all
they hold. This one may be ended and started again at any time; the anchor goes on with the workers
it knows. First line of stdin: the order. After that stdin is the lifeline. Each second a line of
JSON on stdout says where the workers are (`placement` reads it); logs go to stderr.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from streamlift.lifeline import first_line, watch_lifeline

__all__ = ["Actors", "Hosts", "LostHost", "Ray", "Wanted", "main", "selector", "wanted_of"]

logger = logging.getLogger(__name__)

NAMESPACE = "streamlift"
ROUND_S = 1.0
ANSWER_S = 5.0
CORES = 2
"""What a worker is counted as beside its GPU."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A worker that is to be somewhere: its actor's name is the same for every anchor."""

    name: str
    backend: str
    device: str
    configuration: Mapping[str, Any]


def wanted_of(order: Mapping[str, Any]) -> list[Wanted]:
    """`order`: {"backends": [{"name", "device", "workers", "configuration"}]}."""
    return [
        Wanted(f"{b['name']}-{number}", b["name"], b["device"], b["configuration"])
        for b in order["backends"]
        for number in range(b["workers"])
    ]


def selector(device: str) -> dict[str, str]:
    """Ray's label selector for a device: H100|H200 -> in(H100,H200). Labels have no spaces."""
    kinds = [kind.replace(" ", "") for kind in device.split("|")]
    if kinds == ["cpu"]:
        return {}
    chosen = kinds[0] if len(kinds) == 1 else f"in({','.join(kinds)})"
    return {"ray.io/accelerator-type": chosen}


class Actors(Protocol):
    """What is needed of Ray, so that the rest can be tested without."""

    def ask(self, wanted: Wanted) -> Any:
        """Make the actor if there is none of that name, and ask for its status; not awaited."""

    def answer(self, asked: Any) -> dict[str, Any] | None:
        """The status, or None if it is not there yet. Raises LostHost when its actor is gone."""


class LostHost(Exception):
    """The actor or its node is gone; Ray starts it elsewhere, if it can."""


class Hosts:
    """The actors of all workers, asked again and again; one slow one holds up no other."""

    def __init__(self, actors: Actors, wanted: list[Wanted], now_s: Callable[[], float]) -> None:
        self._actors = actors
        self._wanted = wanted
        self._now_s = now_s
        self._asked: dict[str, tuple[Any, float]] = {}
        self._known: dict[str, dict[str, Any]] = {}

    def round(self) -> dict[str, Any]:
        """Ask all that are not being asked, take what came; returns the line for the anchor.

        {"hosts": {NAME: {"backend", "state", "reason", "address", "fingerprint"}}}; `address` is
        empty where it is not known.
        """
        for wanted in self._wanted:
            self._take(wanted)
            if wanted.name not in self._asked:
                self._asked[wanted.name] = (self._actors.ask(wanted), self._now_s())
        return {"hosts": {w.name: self._line(w) for w in self._wanted}}

    def _take(self, wanted: Wanted) -> None:
        if wanted.name not in self._asked:
            return
        asked, since_s = self._asked[wanted.name]
        try:
            answer = self._actors.answer(asked)
        except LostHost as error:
            del self._asked[wanted.name]
            self._known[wanted.name] = {"state": "unavailable", "reason": str(error)}
            return
        if answer is not None:
            del self._asked[wanted.name]
            self._known[wanted.name] = answer
        elif (waits_s := self._now_s() - since_s) > ANSWER_S:
            where = f"a node with {wanted.device} and room" if wanted.device != "cpu" else "a node"
            self._known[wanted.name] = {
                "state": "unavailable",
                "reason": f"has waited {waits_s:.0f} s for {where}, or for an answer",
            }

    def _line(self, wanted: Wanted) -> dict[str, Any]:
        known = self._known.get(wanted.name, {})
        return {
            "backend": wanted.backend,
            "state": known.get("state", "loading"),
            "reason": known.get("reason", "being asked for"),
            "address": known.get("address", ""),
            "fingerprint": known.get("fingerprint"),
        }


class Ray:
    """The actors, by Ray. Made in the main thread: what was joined in another dies with that.

    `address`: ray://HOST:PORT.
    """

    def __init__(self, address: str) -> None:
        import ray

        from streamlift.cluster.host import WorkerHost

        # Always with an address: without, a stale file of an old cluster is followed.
        ray.init(address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
        self._ray = ray
        self._host = ray.remote(max_restarts=-1, max_task_retries=0)(WorkerHost)

    def ask(self, wanted: Wanted) -> Any:
        gpus = 0 if wanted.device == "cpu" else 1
        actor = self._host.options(
            name=wanted.name,
            namespace=NAMESPACE,
            # An owned actor dies with who made it, and that is a process that may be replaced.
            lifetime="detached",
            get_if_exists=True,
            num_cpus=CORES,
            num_gpus=gpus,
            label_selector=selector(wanted.device) or None,
        ).remote(wanted.name, dict(wanted.configuration))
        return actor.status.remote()

    def answer(self, asked: Any) -> dict[str, Any] | None:
        done, _ = self._ray.wait([asked], timeout=0)
        if not done:
            return None
        try:
            return dict(self._ray.get(asked, timeout=ANSWER_S))
        except self._ray.exceptions.RayActorError as error:
            raise LostHost(_first_line(error)) from error
        except self._ray.exceptions.RayError as error:
            raise LostHost(f"{type(error).__name__}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else type(error).__name__


def main() -> int:
    """Run until stdin ends. Any failure of Ray's ends the process: the anchor starts a new one."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    order = json.loads(first_line())
    # What libraries print must not be taken for a line of ours.
    out = os.dup(1)
    os.dup2(2, 1)
    watch_lifeline()
    hosts = Hosts(Ray(order["address"]), wanted_of(order), time.monotonic)
    while True:
        os.write(out, json.dumps(hosts.round()).encode() + b"\n")
        time.sleep(ROUND_S)


if __name__ == "__main__":
    sys.exit(main())
