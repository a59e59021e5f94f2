"""Pulling whatever FFmpeg reads, in a child process that opens nothing which was not checked."""
