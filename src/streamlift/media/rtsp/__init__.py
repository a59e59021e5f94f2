"""Streams for RTSP readers (RFC 2326), over their TCP connection: one more viewer of one encode."""
