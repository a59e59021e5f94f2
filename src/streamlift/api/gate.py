"""The outermost layer: Host and Origin checks, a bound on bodies, CORS, and security headers."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamlift.api.exposure import host_allowed, origin_allowed
from streamlift.api.forwarded import path_within
from streamlift.api.patience import patient
from streamlift.api.problems import Problem, problem_response
from streamlift.config import Config

__all__ = ["PAGE_POLICY", "Gate"]

_EXPOSED = "Location, ETag, Link, Retry-After, Livepeer-Playback-URL"
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match, Streamlift-Control",
    "Access-Control-Max-Age": "600",
}
_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "media-src 'self' blob:; img-src 'self' blob: data:; font-src 'self'; manifest-src 'self'; "
    "worker-src 'none'; object-src 'none'; frame-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_POSTED_SDP = ("/whip/", "/whep/")
_UPLOADED = "/api/v1/files"


class Gate:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self._app = app
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin, host = headers.get("origin"), headers.get("host", "")
        refusal = self._refusal(origin, host, scope["scheme"])
        if refusal is not None:
            await problem_response(refusal)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add_headers(MutableHeaders(scope=message), origin)
            await send(message)

        preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        if preflight:
            answer = Response(status_code=204, headers=_PREFLIGHT)
            if path_within(scope).startswith(_POSTED_SDP):
                answer.headers["Accept-Post"] = "application/sdp"  # RFC 9725 section 4.2
            await answer(scope, receive, send_with_headers)
            return
        await self._app(scope, self._patient(scope, receive), send_with_headers)

    def _patient(self, scope: Scope, receive: Receive) -> Receive:
        body_s, files = self._config.limits.body_s, self._config.files
        uploads = scope["method"] == "POST" and path_within(scope) == _UPLOADED
        if files is None or not uploads:
            return patient(receive, body_s)
        return patient(receive, body_s, most_bytes=files.largest_mb * 1_000_000, each=True)

    def _refusal(self, origin: str | None, host: str, scheme: str) -> Problem | None:
        if not host_allowed(host, self._config):
            return Problem(
                403,
                "host-not-allowed",
                "Host not allowed",
                "without tokens the service answers only under a name of this machine",
                found=host,
                expected="localhost or 127.0.0.1",
            )
        if not origin_allowed(origin, host, scheme, self._config):
            return Problem(
                403,
                "origin-not-allowed",
                "Origin not allowed",
                "this web page may not use the service; list it in server.allowed_origins",
                found=origin,
                expected=list(self._config.server.allowed_origins) or f"{scheme}://{host}",
            )
        return None

    def _add_headers(self, headers: MutableHeaders, origin: str | None) -> None:
        for name, value in _SECURITY.items():
            headers.setdefault(name, value)
        headers.setdefault("Content-Security-Policy", PAGE_POLICY)
        if origin is not None:
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = _EXPOSED
            headers.add_vary_header("Origin")
