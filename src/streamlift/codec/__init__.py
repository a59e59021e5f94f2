"""Video encoding and bitstream helpers."""
