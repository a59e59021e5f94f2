"""Video in and out: RTP, files and other services on one side, our values on the other."""
