"""Picture quality and temporal stability figures."""
