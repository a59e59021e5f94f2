"""WebRTC sessions and file I/O: RTP and av frames on one side, our values on the other."""
