"""Backends on workers: processes of this machine, or other machines. Needs the extra `cluster`.

Nothing of it is imported by a service whose backends are all in its own process.
"""

from streamlift.cluster.backend import WorkerBackend
from streamlift.cluster.roster import WorkerAddress, build_worker_backend, link_to

__all__ = ["WorkerAddress", "WorkerBackend", "build_worker_backend", "link_to"]
