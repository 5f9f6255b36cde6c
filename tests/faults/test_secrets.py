"""A canary secret and canary tokens, looked for wherever something may be read afterwards."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connections
from django.test import Client, RequestFactory
from django.urls import reverse
from django.views.debug import ExceptionReporter

from django_mmolove_referral import mark_qualified
from django_mmolove_referral.client import ReferralClient
from django_mmolove_referral.conf import conf
from django_mmolove_referral.delivery import send
from django_mmolove_referral.delivery.claim import Claimed, claim, probe_subject
from django_mmolove_referral.delivery.drain import Drain
from django_mmolove_referral.delivery.dry_run import dry_run
from django_mmolove_referral.delivery.loop import Loop
from django_mmolove_referral.models import DeliveryAttempt, OutboundEvent, Referral, Reward, ServerHealth
from django_mmolove_referral.protocol import Credentials, Secret
from django_mmolove_referral.sandbox.faults import Fault
from django_mmolove_referral.sandbox.server import SandboxServer
from tests.clock import let_pass
from tests.conftest import SERVER_ID

from .harness import Nursery, Witness, counted, populate, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

SECRET = "canary-secret-0123456789abcdef"


@pytest.fixture
def portal(mmolove: SandboxServer, witness: Witness, configure: Callable[..., None]) -> list[str]:
    """Events of every fate; returns what must be found nowhere."""
    witness.rotate_secret(SERVER_ID, SECRET)
    configure(SECRET=SECRET, PAUSE_AFTER=100)
    referrals = populate(witness, 8)
    answers: list[Fault] = [
        Fault(status=400, body={"error": "bad"}),
        Fault(status=500, body=b"<html>oops</html>"),
        Fault(drop=True),
        Fault(truncate=True),
    ]
    # MMOLove, or something in between, may send a token back.
    answers += [Fault(status=422, body={"error": f"illegal: {one.token}"}, when=_about(one)) for one in referrals[6:]]
    for answer in answers:
        witness.script(answer)
    Drain(concurrency=1).run()
    for one in referrals:
        mark_qualified(one.user)
    let_pass(100)
    Drain(concurrency=2).run()
    return [SECRET, *(one.token for one in referrals)]


def _about(referral: Referral) -> Callable[[Mapping[str, Any]], bool]:
    return lambda fields: bool(fields["token"] == referral.token)


def _found(canaries: list[str], text: str) -> list[str]:
    return [canary for canary in canaries if canary in text]


def test_20_logs_reprs_and_admin_pages(portal: list[str], caplog: pytest.LogCaptureFixture) -> None:
    records = caplog.get_records("setup")
    looked = {"log records": len(records)}
    text = "\n".join(f"{record.getMessage()} {record.args} {record.exc_text}" for record in records)
    assert "is rejected" in text
    assert not _found(portal, text)

    rows = [row for model in (Referral, OutboundEvent, DeliveryAttempt, Reward, ServerHealth) for row in
            model._default_manager.all()]  # fmt: skip
    things: list[Any] = [*rows, conf, conf.server("default"), conf.server("default").credentials()]
    things += [probe_subject("default", using="default"), ReferralClient(SERVER_ID, SECRET)]
    kinds = (Claimed, send.Sent, send.Probed, send.Channel, Credentials, Secret)
    things += [thing for thing in gc.get_objects() if isinstance(thing, kinds)]
    let_pass(10_000)
    OutboundEvent.objects.filter(state="rejected").update(state="pending")
    things += claim("default", SERVER_ID, 10, using="default")
    assert any(isinstance(thing, Claimed) for thing in things)
    for thing in things:
        assert not _found(portal, f"{thing!r} {thing}"), type(thing)
    looked["reprs"] = len(things)

    model: Any = get_user_model()
    staff = model._default_manager.create_user(**{model.USERNAME_FIELD: "staff@example.com", "password": "pw"})
    staff.is_staff = True
    staff.save()
    # All but the one that is about whole tokens.
    staff.user_permissions.set(Permission.objects.exclude(codename="view_token"))
    browser, pages = Client(), 0
    browser.force_login(staff)
    for stored in (Referral, OutboundEvent, Reward, ServerHealth):
        base = f"admin:{stored._meta.app_label}_{stored._meta.model_name}"
        urls = [reverse(f"{base}_changelist")]
        urls += [reverse(f"{base}_change", args=[row.pk]) for row in stored._default_manager.all()]
        for url in urls:
            answer = browser.get(url, follow=True)  # the health has no page of its own
            assert answer.status_code == 200, url
            assert not _found(portal, answer.content.decode()), url
            pages += 1
    looked["admin pages"] = pages
    shown = dry_run("default", using="default")
    assert not _found(portal, f"{shown} {shown.body} {shown.answer} {shown.signature}")
    counted("20, canaries", **{name.replace(" ", "_"): number for name, number in looked.items()}, found=0)


@pytest.mark.parametrize(
    "at",
    [
        "django_mmolove_referral.protocol.sign",
        "django_mmolove_referral.transport.Transport.post",
        "django_mmolove_referral.delivery.send._ruling",
        "django_mmolove_referral.delivery.settle._Batch._save",
        "django_mmolove_referral.delivery.claim._follow",
        "django_mmolove_referral.lifecycle._write",
    ],
)
def test_20_exception_reports_and_the_debug_page(
    at: str, portal: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    reports: list[str] = []

    def explode(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError

    def report(error: BaseException) -> None:
        request = RequestFactory().get("/page/")
        for debug in (True, False):  # what DEBUG shows, and what is mailed to ADMINS
            settings.DEBUG = debug
            reporter = ExceptionReporter(request, type(error), error, error.__traceback__)
            reports.extend((reporter.get_traceback_html(), reporter.get_traceback_text()))
        settings.DEBUG = False

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = sys.exc_info()[1]
            if error is not None:
                report(error)

    def drain() -> None:
        """In a thread of its own, so that no frame of this test is part of the report."""
        try:
            Loop(concurrency=2)._once()
        finally:
            connections.close_all()

    handler, logger = Handler(), logging.getLogger("mmolove_referral")
    logger.addHandler(handler)
    let_pass(10_000)
    OutboundEvent.objects.filter(state="rejected").update(state="pending")
    monkeypatch.setattr(at, explode)
    signing_up = at.endswith("_write")
    if signing_up:
        visitor = Client()
        visitor.get(f"/register/?mmref={portal[-1]}x")
        visitor.post("/register/", {"name": "late@example.com"})
    else:
        thread = threading.Thread(target=drain)
        thread.start()
        thread.join()
    logger.removeHandler(handler)
    assert reports, "something went wrong, and was reported"
    for text in reports:
        assert "ZeroDivisionError" in text
        assert not _found(portal, text), _context(portal, text)
    assert not _found(portal, caplog.text)
    counted("20, exception reports", at=at.rpartition(".")[2], reports=len(reports), found=0)


def _context(canaries: list[str], text: str) -> list[str]:
    places = [text.index(canary) for canary in _found(canaries, text)]
    return [text[max(place - 300, 0) : place + 50] for place in places]


def test_20_what_workers_print(witness: Witness, nursery: Nursery) -> None:
    """A worker's own output, with everything going wrong that may."""
    witness.rotate_secret(SERVER_ID, SECRET)
    referrals = populate(witness, 6)
    last = referrals[-1].token
    echo = Fault(status=422, body={"error": f"illegal: {last}"}, when=lambda sent: sent["token"] == last)
    for answer in (Fault(status=500), Fault(drop=True), echo):
        witness.script(answer)
    settings = {"SECRET": SECRET, "PAUSE_AFTER": 100}
    hooks = [{"at": "django_mmolove_referral.delivery.settle:_Batch.settle", "act": "raise"}]
    worker = nursery.start("loop", concurrency=2, settings=settings, hooks=hooks)
    wait_until(lambda: not OutboundEvent.objects.filter(attempts=0).exists(), "one attempt each")
    worker.stop()
    said = "\n".join(nursery.said())
    assert said
    assert not _found([SECRET, *(one.token for one in referrals)], said)
    counted("20, output", lines=len(nursery.said()), found=0)
