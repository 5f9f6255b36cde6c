"""Sign-ups that die at any point, and with them the only one who could have woken a worker."""

from __future__ import annotations

import random
import time
from itertools import count
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client

from django_mmolove_referral.models import OutboundEvent, Referral
from tests.conftest import SERVER_ID

from .harness import A_BUSY_MACHINE, Child, Nursery, Witness, all_final, audit, counted, size, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

_numbers = count(1)
WITHOUT_A_LIMIT = 20.0
"""Seconds: less than what a database waits for a lock by itself (for ever, 50 s for a row, a day for a table)."""


class Visitor:
    """A browser that has come by a referral link."""

    def __init__(self, witness: Witness, nursery: Nursery) -> None:
        self.name, self.token = f"player{next(_numbers)}@example.com", witness.mint(SERVER_ID, "alice")
        self.browser, self._nursery = Client(), nursery
        self.browser.get(f"/register/?mmref={self.token}")
        self._session = self.browser.cookies[settings.SESSION_COOKIE_NAME].value

    def sign_up_elsewhere(self, *, atomic: bool, login: bool, **order: Any) -> Child:
        """In a child process, which this browser's request may be the end of."""
        form = {"name": self.name, **({"login": "1"} if login else {})}
        return self._nursery.start("visit", url="/register/", form=form, session=self._session, atomic=atomic, **order)

    @property
    def account(self) -> Any:
        model = get_user_model()
        return model._default_manager.filter(**{model.USERNAME_FIELD: self.name}).first()

    @property
    def written(self) -> tuple[int, int]:
        """How many referrals and events this visit has led to."""
        referrals = Referral.objects.filter(token=self.token)
        return referrals.count(), OutboundEvent.objects.filter(referral__in=referrals).count()

    def come_again(self) -> None:
        """As people do after an error page: log in, or sign up again if that account is not there."""
        if self.account:
            self.browser.post("/signin/", {"name": self.name})
        else:
            self.browser.post("/register/", {"name": self.name, "login": "1"})


@pytest.mark.parametrize("atomic", [True, False], ids=["ATOMIC_REQUESTS", "autocommit"])
def test_1_a_sign_up_killed_anywhere_leaves_both_or_is_healed(atomic: bool, witness: Witness, nursery: Nursery) -> None:
    lengths = {}
    for login in (True, False):
        measured = Visitor(witness, nursery)
        assert measured.sign_up_elsewhere(atomic=atomic, login=login).wait() == 0
        assert measured.written == (1, 1)
        lengths[login] = int(nursery.said()[-1])

    kills, seed = size(10, 200), random.randrange(10**6)
    chance = random.Random(seed)
    done = both = neither = unattached = 0
    while done < kills:
        visitor, login = Visitor(witness, nursery), chance.random() < 0.5
        point = chance.randint(1, lengths[login])
        child = visitor.sign_up_elsewhere(atomic=atomic, login=login, point=point)
        if child.wait() == 0:  # this one took fewer calls than the measured one
            continue
        done += 1
        told = f"seed {seed}, point {point} of {lengths[login]}: {visitor.written}"
        assert visitor.written in ((0, 0), (1, 1)), told
        if visitor.account is None:
            neither += 1
            assert visitor.written == (0, 0), told
        elif visitor.written == (0, 0):
            unattached += 1
            assert not atomic, told
        else:
            both += 1
        visitor.come_again()
        assert visitor.written == (1, 1), told
        assert Referral.objects.get(token=visitor.token).user == visitor.account, told
    assert nursery.start("once").wait() == 0
    result = audit(witness)
    assert result.repeated == 0
    counted(
        f"1, {'ATOMIC_REQUESTS' if atomic else 'autocommit'}",
        kills=kills,
        points=lengths[True],
        account_and_event=both,
        neither=neither,
        account_alone=unattached,
        healed_at_the_login=unattached,
        lost=0,
    )


@pytest.mark.parametrize("job", ["loop", "web"])
def test_2_a_crash_between_commit_and_wake_up_delays_by_one_sweep_at_most(
    job: str, witness: Witness, nursery: Nursery
) -> None:
    sweep, rounds, waits = 1.0, size(3, 50), []
    options: dict[str, Any] = {"DISPATCH": "thread", "SWEEP_INTERVAL": sweep}
    nursery.start(job, settings=options)
    wake = {"at": "django_mmolove_referral.delivery.dispatch:wake", "act": "kill"}
    for number in range(rounds):
        visitor = Visitor(witness, nursery)
        child = visitor.sign_up_elsewhere(atomic=number % 2 == 0, login=False, hooks=[wake])
        assert child.wait() == -9
        died = time.monotonic()
        assert visitor.written == (1, 1)
        witness.wait(number + 1)
        waits.append(time.monotonic() - died)
    assert max(waits) < sweep + A_BUSY_MACHINE
    wait_until(all_final, "settling")
    result = audit(witness)
    assert result.repeated == 0
    counted(f"2, {job}", crashes=rounds, sweep_s=sweep, longest_wait_s=round(max(waits), 2), lost=0)


@pytest.mark.parametrize("model", [Referral, OutboundEvent])
@pytest.mark.parametrize("atomic", [True, False], ids=["ATOMIC_REQUESTS", "autocommit"])
def test_22_without_our_tables_the_visitor_notices_nothing(
    atomic: bool,
    model: type[Referral | OutboundEvent],
    witness: Witness,
    nursery: Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", atomic)
    visitor = Visitor(witness, nursery)
    name = model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {name} RENAME TO {name}_away")
    try:
        answer = visitor.browser.post("/register/", {"name": visitor.name})
        assert answer.status_code == 200
        assert answer.content.decode() == str(visitor.account.pk)
        visitor.come_again()  # the login is whole, too
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {name}_away RENAME TO {name}")
    assert visitor.written == (0, 0)
    visitor.come_again()
    assert visitor.written == (1, 1)
    assert nursery.start("once").wait() == 0
    audit(witness)
    counted("22", missing=name, atomic=atomic, error_pages=0, healed_at_the_next_login=1)


HELD = {
    "postgresql": {
        "referrals": f"LOCK TABLE {Referral._meta.db_table} IN ACCESS EXCLUSIVE MODE",
        "events": f"LOCK TABLE {OutboundEvent._meta.db_table} IN ACCESS EXCLUSIVE MODE",
    },
    # With WRITE on the referrals, which point at accounts, MariaDB lets the portal's own INSERT of an account wait.
    "mysql": {
        "referrals": f"LOCK TABLES {Referral._meta.db_table} READ",
        "events": f"LOCK TABLES {OutboundEvent._meta.db_table} WRITE",
    },
}.get(connection.vendor, {})
RELEASE = {"postgresql": "ROLLBACK", "mysql": "UNLOCK TABLES"}.get(connection.vendor, "")


@pytest.mark.skipif(not HELD, reason="one lock for all writing, which the portal's own statements wait for as long")
@pytest.mark.parametrize("atomic", [True, False], ids=["ATOMIC_REQUESTS", "autocommit"])
def test_22_locked_tables_keep_no_visitor_waiting(atomic: bool, witness: Witness, nursery: Nursery) -> None:
    rounds, times = size(1, 10), []
    for _ in range(rounds):
        for lock in HELD.values():
            visitors = [Visitor(witness, nursery) for _ in range(3)]
            with connection.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute(lock)
                begun = time.monotonic()
                children = [visitor.sign_up_elsewhere(atomic=atomic, login=False) for visitor in visitors]
                for child in children:
                    assert child.wait(WITHOUT_A_LIMIT) == 0  # while the lock is held
                times.append(time.monotonic() - begun)
                cursor.execute(RELEASE)
            for visitor in visitors:
                assert visitor.account
                assert visitor.written == (0, 0)
                visitor.come_again()
                assert visitor.written == (1, 1)
    assert nursery.start("once").wait() == 0
    audit(witness)
    counted("22, locked", atomic=atomic, locked=" and ".join(HELD), sign_ups=rounds * len(HELD) * 3, error_pages=0,
            slowest_process_s=round(max(times), 2), healed_at_the_next_login=rounds * len(HELD) * 3)  # fmt: skip
