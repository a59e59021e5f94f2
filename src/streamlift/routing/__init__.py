"""Named streams and where their frames go; pure Python."""
