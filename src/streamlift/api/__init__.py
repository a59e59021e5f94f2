"""HTTP: WHIP and WHEP resources, the control API, and the page."""
