"""What a browser complains of, on any page of a context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import BrowserContext, Request, Response

POLICY = "default-src 'self'"
_TELL = """
addEventListener("securitypolicyviolation", event => tell(
    `policy: ${event.violatedDirective} blocked ${event.blockedURI || "inline"} on ${location.pathname}: ` +
    event.sample
));
addEventListener("load", () => {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return;
    const wide = [...document.querySelectorAll("body *")].find(one => one.getBoundingClientRect().right > width + 1);
    tell(`width: ${location.pathname} is wider than the window: ${wide && wide.outerHTML.slice(0, 160)}`);
});
"""


class Watch:
    """Collects console and script errors, failed requests, what the content security policy blocked or did not
    cover, and pages that have to be scrolled sideways."""

    def __init__(self, context: BrowserContext) -> None:
        self.complaints: list[str] = []
        self._expected: int | None = None
        context.expose_binding("tell", lambda source, complaint: self.complaints.append(complaint))
        context.add_init_script(_TELL)
        context.on("console", lambda message: self._console(message.type, message.text, message.location["url"]))
        context.on("weberror", lambda error: self.complaints.append(f"script: {error.error}"))
        context.on("requestfailed", self._failed)
        context.on("response", self._response)

    @contextmanager
    def expecting(self, status: int) -> Iterator[None]:
        """Within the block, an answer with ``status`` is as it should be."""
        self._expected = status
        try:
            yield
        finally:
            self._expected = None

    def _console(self, kind: str, text: str, url: str) -> None:
        expected = self._expected is not None and f"status of {self._expected} " in text
        # An icon is asked for at leisure, which may be while the portal is restarted.
        restarted = "net::ERR_CONNECTION_" in text and url.endswith("/favicon.ico")
        if kind in ("error", "warning") and not expected and not restarted:
            self.complaints.append(f"console: {text} ({url})")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # by the visitor, who left a page before all of it was there
            self.complaints.append(f"request: {request.method} {request.url}: {request.failure}")

    def _response(self, response: Response) -> None:
        if response.status >= 400 and response.status != self._expected:
            self.complaints.append(f"answer: {response.status} {response.url}")
        page = response.request.is_navigation_request() and not 300 <= response.status < 400
        if page and POLICY not in response.headers.get("content-security-policy", ""):
            self.complaints.append(f"policy: {response.url} has none")
