"""What Schemathesis is told: how a body of text that is no JSON goes out. Loaded by its command."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def as_text(context: Any, value: Any) -> bytes:
    """Whatever was made up for it; half of it is no text at all."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
