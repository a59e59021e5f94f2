"""Files instead of streams."""

from streamlift.offline.options import Options, Progress, Result
from streamlift.offline.upscale import upscale_file

__all__ = ["Options", "Progress", "Result", "upscale_file"]
