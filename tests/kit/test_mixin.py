"""The mixin in Django's own test cases, on the database of this run."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings

from django_mmolove_referral import aattach_referral, amark_qualified, attach_referral, mark_qualified
from django_mmolove_referral.conf import conf
from django_mmolove_referral.models import Referral
from django_mmolove_referral.testing import MMOLoveTestMixin
from tests.portal import create


class Journey(MMOLoveTestMixin):
    """What holds in every kind of test case."""

    client: Any
    async_client: Any

    def sign_up(self, name: str = "bob@example.com") -> Any:
        self.mmolove.visit(self.client, "/page/")
        self.client.post("/register/", {"name": name, "login": "1"})
        return get_user_model()._default_manager.get(**{get_user_model().USERNAME_FIELD: name})

    def test_a_visitor_signs_up_and_qualifies(self) -> None:
        bob = self.sign_up()
        self.client.post("/milestone/")
        assert self.mmolove.deliver().accepted == 2
        self.mmolove.assert_qualified(bob)

    def test_the_next_test_begins_afresh(self) -> None:
        self.test_a_visitor_signs_up_and_qualifies()
        assert len(self.mmolove.sandbox.referrals) == 1

    def test_the_settings_of_the_test_and_of_the_kit_go_together(self) -> None:
        with (
            self.settings(DEBUG=True),
            override_settings(MMOLOVE_REFERRAL={**settings.MMOLOVE_REFERRAL, "KEY_ID": "k1"}),
        ):
            attach_referral(create("bob@example.com"), self.mmolove.mint())
            assert self.mmolove.deliver().accepted == 1
        assert conf.server("default").credentials().key_id == ""

    async def test_in_an_async_test(self) -> None:
        await self.async_client.get("/page/", {"mmref": self.mmolove.mint()})
        await self.async_client.post("/aregister/", {"name": "bob@example.com", "login": "1"})
        await self.async_client.post("/amilestone/")
        await sync_to_async(self.mmolove.deliver)()
        referral = await Referral.objects.select_related("user").aget()
        await sync_to_async(self.mmolove.assert_qualified)(referral.user)

    async def test_the_async_verbs(self) -> None:
        bob = await sync_to_async(create)("bob@example.com")
        await aattach_referral(bob, self.mmolove.mint())
        await amark_qualified(bob)
        assert (await sync_to_async(self.mmolove.deliver)()).accepted == 2


class InATestCase(Journey, TestCase):
    """Which rolls back, within the class's own transaction."""

    told: ClassVar[list[str]] = []
    carol: ClassVar[Any]

    @classmethod
    def setUpTestData(cls) -> None:
        cls.carol = create("carol@example.com")
        transaction.on_commit(lambda: cls.told.append("the class's own"))

    def test_what_the_class_left_to_the_commit_is_not_the_tests(self) -> None:
        attach_referral(self.carol, self.mmolove.mint())
        mark_qualified(self.carol)
        self.mmolove.deliver()
        self.mmolove.assert_qualified(self.carol)
        assert self.told == []

    def test_nothing_of_another_test_is_left(self) -> None:
        assert not Referral.objects.exists()
        assert self.mmolove.sent == []


class WithAtomicRequests(InATestCase):
    def setUp(self) -> None:
        super().setUp()
        connection.settings_dict["ATOMIC_REQUESTS"] = True
        self.addCleanup(connection.settings_dict.__setitem__, "ATOMIC_REQUESTS", False)

    # Django refuses async views there.
    test_in_an_async_test = None  # type: ignore[assignment]


class InATransactionTestCase(Journey, TransactionTestCase):
    """Which commits."""

    def test_one_browser_uses_a_token_once(self) -> None:
        self.sign_up()
        self.client.post("/signout/")
        self.client.post("/register/", {"name": "eve@example.com"})
        assert Referral.objects.count() == 1


class WithoutADatabase(MMOLoveTestMixin, SimpleTestCase):
    def test_a_kit_that_is_not_used_asks_for_none(self) -> None:
        assert self.mmolove.mint()


class WithASetUpThatKeepsToItself(MMOLoveTestMixin, SimpleTestCase):
    def setUp(self) -> None:
        pass

    def test_it_is_told(self) -> None:
        said = (
            "WithASetUpThatKeepsToItself.setUp() did not reach MMOLoveTestMixin's: name MMOLoveTestMixin before the "
            "test case among the bases, and call super().setUp() first."
        )
        with pytest.raises(RuntimeError, match=f"^{re.escape(said)}$"):
            self.mmolove.mint()
