"""A browser over real HTTP: keeps cookies, follows redirects from host to host, fills in the forms it is shown."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import requests


class Form:
    def __init__(self, attributes: dict[str, str]) -> None:
        self.action = attributes.get("action", "")
        self.method = attributes.get("method", "get")
        self.fields: dict[str, str] = {}


class Forms(HTMLParser):
    """The forms of a page with what stands in their fields."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[Form] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(Form(attributes))
        elif tag == "input" and self.found and attributes.get("name") and attributes.get("type") != "checkbox":
            self.found[-1].fields[attributes["name"]] = attributes.get("value", "")


class Browser:
    """Every page is expected to be one: a refusal of the portal's fails the test with its text."""

    def __init__(self, portal: str) -> None:
        self.portal = portal
        self.session = requests.Session()
        self.session.trust_env = False

    def close(self) -> None:
        self.session.close()

    def ask(self, method: str, url: str, **options: Any) -> requests.Response:
        return self.session.request(method, urljoin(self.portal, url), timeout=30, **options)

    def get(self, url: str) -> requests.Response:
        return seen(self.ask("GET", url))

    def visit(self, token: str) -> None:
        """Come from MMOLove with ``token``."""
        self.get(f"/page/?mmref={token}")

    def submit(self, page: requests.Response, action: str = "", **fields: str) -> requests.Response:
        """Fill ``fields`` into the form of ``page`` that has them all (and goes to ``action``)."""
        forms = [
            form
            for form in Forms(page.text).found
            if form.method.lower() == "post" and fields.keys() <= form.fields.keys() and action in form.action
        ]
        assert len(forms) == 1, f"{len(forms)} forms of {page.url} have {sorted(fields)}:\n{page.text}"
        address = urljoin(page.url, forms[0].action)
        return seen(self.ask("POST", address, data={**forms[0].fields, **fields}, headers={"Referer": page.url}))


def seen(page: requests.Response) -> requests.Response:
    assert page.status_code == 200, f"{page.status_code} for {page.request.method} {page.url}:\n{page.text[:3000]}"
    assert 'class="errorlist' not in page.text, f"The form of {page.url} was refused:\n{page.text[:3000]}"
    return page
