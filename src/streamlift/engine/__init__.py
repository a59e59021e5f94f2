"""One GPU or the CPU: its thread, lanes, scheduling and the temporal stabiliser."""
