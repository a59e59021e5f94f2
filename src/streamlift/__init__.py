"""streamlift: real-time upscaling of live WebRTC video."""

__version__ = "0.1.0"
__all__ = ["__version__"]
