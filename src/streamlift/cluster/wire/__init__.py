"""What goes over a link: the messages of worker.proto, and their translation to our values."""
