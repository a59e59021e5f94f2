"""HTTP: WHIP and WHEP resources, the control API, and the page."""

from streamlift.api.application import create_api
from streamlift.api.exposure import check_exposure

__all__ = ["check_exposure", "create_api"]
