"""WebRTC itself: connections, SDP, ICE; alone in touching aiortc's private parts."""
