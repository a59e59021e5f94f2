"""Where streams are sent by other ways than WebRTC: RTMP and RTSP servers, and camera devices."""
