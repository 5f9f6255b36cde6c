"""What axe-core finds on a page: what would keep somebody out who uses a keyboard or a screen reader.

Only axe-core's script is taken from ``axe-playwright-python``. Evaluated by the browser's own protocol, it is no part
of the page, so that a strict content security policy does not hold it up.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import django
from playwright.sync_api import Page

SERIOUS = ("serious", "critical")
EXAMINED = django.VERSION >= (6,)
"""The admin of Django 5.2 has serious violations of its own on most pages (links told by colour alone, fields without a
label), which would hide ours."""

_RUN = """async () => {
    const found = await axe.run(document, {resultTypes: ["violations"]});
    return found.violations.map(({id, impact, help, nodes}) => (
        {id, impact, help, nodes: nodes.map(node => node.html + " " + node.failureSummary)}
    ));
}"""


def serious(page: Page) -> list[str]:
    """The serious and critical violations of the page that is open, one line each; best compared with ``[]``."""
    if not EXAMINED:
        return []
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
    found: list[dict[str, Any]] = page.evaluate(_RUN)
    return [
        f"{violation['impact']} {violation['id']}: {violation['help']}: {node}"
        for violation in found
        if violation["impact"] in SERIOUS
        for node in violation["nodes"]
    ]
