"""What the demo plays: Alice invites Bob, over real HTTP. Every exchange is printed."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

import requests

PASSWORD = "emberfall"  # noqa: S105  # for accounts that live as long as the demo, on this machine only
PATIENCE = 60.0
"""Seconds to wait for what happens in the background; it takes a fraction of one, on a busy machine a few."""


class StepFailed(Exception):
    """The journey did not go as it should."""


def expect(condition: object, otherwise: str) -> None:
    if not condition:
        raise StepFailed(otherwise)


def wait_for(what: str, look: Callable[[], Any]) -> Any:
    """What ``look`` returns as soon as that is something."""
    until = time.monotonic() + PATIENCE
    while not (found := look()):
        expect(time.monotonic() < until, f"{what}: not within {PATIENCE:g} seconds")
        time.sleep(0.05)
    return found


def styled(code: str, text: str) -> str:
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def say(text: str = "") -> None:
    print(f"   {text}" if text else "")


def masked(text: str) -> str:
    """``text`` with the token of a link cut short: tokens do not belong on screens."""
    return re.sub(r"(mmref=[^&]{4})[^&]*", r"\1…", text)


def say_exchange(response: requests.Response) -> None:
    request = response.request
    onward = f" → {masked(response.headers['Location'])}" if response.is_redirect else ""
    say(f"{request.method:4} {masked(request.path_url)}  {styled('36', str(response.status_code))}{onward}")


def say_delivery(kind: str) -> None:
    """Wait until MMOLove has accepted the event, and show the request and the answer from the portal's own log."""
    from django_mmolove_referral.models import OutboundEvent

    events = OutboundEvent.objects.filter(kind=kind, state=OutboundEvent.State.ACCEPTED)
    event = wait_for(f"MMOLove accepts {kind!r}", events.first)
    attempt = event.delivery_attempts.latest("pk")
    body = json.loads(event.body)
    body["token"] = f"{body['token'][:4]}…"
    say(f"POST {os.environ['MMOLOVE_ENDPOINT']}")
    say(f"X-MMOLove-Signature: t={attempt.signed_at},v1=sha256=…")
    for line in json.dumps(body, indent=2, ensure_ascii=False).splitlines():
        say(line)
    say(f"{styled('36', str(attempt.status))} {attempt.answer}")


class Player:
    """A browser: cookies, redirects one by one, CSRF tokens."""

    def __init__(self, name: str, home: str) -> None:
        self.name = name
        self._home = home
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy on the way to this machine

    def get(self, path: str, *, quietly: bool = False) -> str:
        return self._request("GET", path, quietly=quietly)

    def post(self, path: str, **fields: str) -> str:
        """Submit the form of a page that was looked at before."""
        fields["csrfmiddlewaretoken"] = self._session.cookies.get("csrftoken") or ""
        return self._request("POST", path, fields)

    def register(self) -> str:
        page = self.post("/register/", username=self.name, password1=PASSWORD, password2=PASSWORD)
        expect("Welcome to Emberfall" in page, "the form was not accepted")
        return page

    def gold(self) -> int:
        return int(self.find(r'id="gold">(\d+)<', self.get("/rewards/", quietly=True)))

    @staticmethod
    def find(pattern: str, page: str) -> str:
        found = re.search(pattern, page)
        if found is None:
            raise StepFailed(f"the page does not show {pattern}")
        return found[1]

    def _request(self, method: str, path: str, data: dict[str, str] | None = None, *, quietly: bool = False) -> str:
        response = self._session.request(
            method, urljoin(self._home, path), data=data, allow_redirects=False, timeout=PATIENCE
        )
        while True:
            if not quietly:
                say_exchange(response)
            if response.next is None:
                break
            response = self._session.send(response.next, allow_redirects=False, timeout=PATIENCE)
        expect(response.status_code == 200, f"{response.url} answered {response.status_code}")
        return response.text


class Journey:
    """The steps, in order; each one's docstring is its title."""

    def __init__(self, home: str) -> None:
        self.alice, self.bob = Player("alice", home), Player("bob", home)
        self.steps = [
            self.alice_registers,
            self.bob_follows_her_link,
            self.bob_registers,
            self.registered_is_delivered,
            self.bob_reaches_the_milestone,
            self.alice_is_rewarded,
            self.once,
        ]

    def alice_registers(self) -> None:
        """Alice registers and finds her invite link"""
        self.alice.get("/register/")
        self.link = Player.find(r'id="invite-link" value="([^"]+)"', self.alice.register())
        say(f"Her link: {self.link}")

    def bob_follows_her_link(self) -> None:
        """Bob follows it: the portal notes whose it is, MMOLove sends him on with a token"""
        page = self.bob.get(self.link)
        expect("<h1>Register</h1>" in page, "the link does not lead to the registration form")

    def bob_registers(self) -> None:
        """Bob registers: his referral is written in the same transaction as his account"""
        page = self.bob.register()
        say(f"Invited by: {Player.find(r'Invited by</dt><dd>([^<]+)<', page)}")

    def registered_is_delivered(self) -> None:
        """A thread of the portal has told MMOLove"""
        say_delivery("registered")

    def bob_reaches_the_milestone(self) -> None:
        """Bob trains to level 10: mark_qualified(bob)"""
        self.bob.post("/character/", level="10")
        say_delivery("qualified")

    def alice_is_rewarded(self) -> None:
        """Alice gets her gold, from the portal's own receiver of referral_qualified"""
        from django_mmolove_referral.models import Reward

        wait_for("The reward is granted", Reward.objects.filter(state=Reward.State.GRANTED).first)
        row = Player.find(r'<td>alice</td><td>bob</td><td class="number">(\d+)</td>', self.alice.get("/rewards/"))
        say(f"Earned by alice for inviting bob: {row} gold")

    def once(self) -> None:
        """Bob trains on: mark_qualified(bob) again, and nothing more comes of it"""
        before = self.books()
        self.bob.post("/character/", level="11")
        expect(self.books() == before, f"the books said {before}, and now {self.books()}")
        say(f"As before: {before}")

    def books(self) -> str:
        from django_mmolove_referral.models import DeliveryAttempt, OutboundEvent, Reward

        return (
            f"{OutboundEvent.objects.count()} events, {DeliveryAttempt.objects.count()} requests, "
            f"{Reward.objects.count()} reward; Alice has {self.alice.gold()} gold"
        )

    def play(self) -> None:
        for number, step in enumerate(self.steps, 1):
            title = str(step.__doc__)
            print("\n" + styled("1", f"{number}. {title}"))
            try:
                step()
            except Exception as failure:
                raise StepFailed(f"step {number} ({title}): {failure}{self.complaints()}") from failure

    def complaints(self) -> str:
        """What the portal's tables say about it."""
        from django_mmolove_referral.models import OutboundEvent, Reward

        rows: list[OutboundEvent | Reward] = [
            *OutboundEvent.objects.exclude(last_error=""),
            *Reward.objects.exclude(last_error=""),
        ]
        return "".join(f"\n{row}: {row.last_error}" for row in rows)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=PATIENCE).ok
    except requests.ConnectionError:
        return False


if __name__ == "__main__":
    # Against a portal that is running already; both read the same environment.
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    django.setup()
    wait_for("the portal answers", lambda: answers(sys.argv[1]))
    Journey(sys.argv[1]).play()
