"""What viewers get: encoded frames, packetized once for all."""
