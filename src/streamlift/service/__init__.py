"""What the service does, without HTTP: joins routing and media."""

from streamlift.service.service import Service
from streamlift.service.sessions import Session, Sessions

__all__ = ["Service", "Session", "Sessions"]
