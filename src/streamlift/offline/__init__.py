"""Files instead of streams."""

from streamlift.offline.upscale import Progress, upscale_file

__all__ = ["Progress", "upscale_file"]
