"""What is kept: the referral, its outbox of events with their attempts, its reward, and each server's health.

An event's row is outbox and log in one. Nothing here decides anything: the verbs are in ``lifecycle``, the
transitions in ``delivery``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from django.conf import settings
from django.db import connections, models
from django.db.models import F
from django.utils.translation import gettext_lazy as _

from .conf import ALIAS_LENGTH
from .protocol import Kind

TOKEN_LENGTH = 1024
CODE_LENGTH = 255


class ReferralQuerySet(models.QuerySet["Referral"]):
    def lock(self, pks: Iterable[int]) -> dict[int, Referral]:
        """Lock these referrals until the transaction ends, in one order for everybody, and return them by key.

        Whoever changes what hangs on a referral (its events, its reward) locks it first.
        """
        rows = self.filter(pk__in=list(pks)).order_by("pk")
        if connections[rows.db].features.has_select_for_update:
            rows = rows.select_for_update()
        else:
            # SQLite locks the whole file at the first write, so write before reading: reading first and
            # writing then fails at once with "database is locked" when another writer came in between.
            rows.update(server=F("server"))
        return {referral.pk: referral for referral in rows}


class Referral(models.Model):
    """A referred account: who came by whose link, and how far it got."""

    class State(models.TextChoices):
        CAPTURED = "captured", _("captured")  # the token is bound to the account, nothing accepted yet
        REGISTERED = "registered", _("registered")  # MMOLove knows the account
        QUALIFIED = "qualified", _("qualified")  # the milestone is credited
        CONFLICT = "conflict", _("first-touch conflict")  # another referrer holds this account; no reward
        REVERSED = "reversed", _("reversed")  # taken back by the portal
        EXPIRED = "expired", _("expired")  # the token aged out before anything was accepted

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("referred account"),
        null=True,
        on_delete=models.SET_NULL,
        related_name="mmolove_referrals",
        db_index=False,  # the constraint's index begins with it
    )
    server = models.CharField(_("server"), max_length=ALIAS_LENGTH)
    token = models.CharField(_("token"), max_length=TOKEN_LENGTH, blank=True)
    referrer = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("referrer"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="mmolove_invited",
    )
    referrer_code = models.CharField(_("referrer code"), max_length=CODE_LENGTH, blank=True)
    state = models.CharField(_("state"), max_length=16, choices=State.choices, default=State.CAPTURED)
    referral_id = models.CharField(_("referral id at MMOLove"), max_length=255, blank=True)
    created_at = models.DateTimeField(_("attached at"), auto_now_add=True)
    registered_at = models.DateTimeField(_("registered at"), null=True, blank=True)
    qualified_at = models.DateTimeField(_("qualified at"), null=True, blank=True)
    closed_at = models.DateTimeField(_("conflict, reversed or expired at"), null=True, blank=True)
    #: The kinds whose events were pruned, by a space between: nobody may write them a second time.
    pruned = models.CharField(_("pruned events"), max_length=64, blank=True)

    objects = ReferralQuerySet.as_manager()

    class Meta:
        verbose_name = _("referral")
        verbose_name_plural = _("referrals")
        # The rows are a log: nobody adds, changes or deletes them by hand.
        default_permissions = ("view",)
        permissions: ClassVar = [
            ("view_token", "Can see whole referral tokens"),
            ("mark_qualified", "Can mark referrals qualified"),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user", "server"], name="mmolove_referral_once"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["server", "registered_at"], name="mmolove_referral_registered"),
            models.Index(fields=["referral_id"], name="mmolove_referral_remote"),
            # For the admin's filter: without it, the few that are in conflict are looked for among all.
            models.Index(fields=["state", "id"], name="mmolove_referral_state"),
        ]

    def __str__(self) -> str:
        return f"Referral {self.pk} ({self.server}, {self.state})"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in (self.State.CONFLICT, self.State.REVERSED, self.State.EXPIRED)

    @property
    def blanked(self) -> bool:
        """Whether its token is gone, and with it all that could be reported: by its age, or with the account."""
        return not self.token

    def given_up(self, kind: str) -> bool:
        """Whether an event of ``kind`` was pruned, or can never leave as ``registered`` was, unaccepted."""
        kinds = self.pruned.split()
        return kind in kinds or (Kind.REGISTERED.value in kinds and self.registered_at is None)


class OutboundEvent(models.Model):
    """One event on its way to MMOLove, and afterwards the record of what came of it."""

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")  # for the event that has to be accepted before it
        PENDING = "pending", _("pending")  # due at due_at; claimed by a worker while claim is set
        ACCEPTED = "accepted", _("accepted")
        REJECTED = "rejected", _("rejected")  # refused for itself
        EXHAUSTED = "exhausted", _("exhausted")  # the retry schedule came to its end
        CANCELLED = "cancelled", _("cancelled")

    class Reason(models.TextChoices):
        """Why an event was cancelled."""

        OPERATOR = "operator", _("cancelled by an operator")
        CONFLICT = "conflict", _("another referrer holds this account")
        REVERSED = "reversed", _("the referral was reversed before it was sent")
        DELETED = "deleted", _("the account was deleted")
        EXPIRED = "expired", _("the token expired")
        BLANKED = "blanked", _("the token had been blanked")

    KINDS: ClassVar = [
        (Kind.REGISTERED.value, _("registered")),
        (Kind.QUALIFIED.value, _("qualified")),
        (Kind.REVERSED.value, _("reversed")),
    ]
    OUTCOMES: ClassVar = [
        ("advanced", _("advanced")),
        ("duplicate", _("already known")),
        ("ignored", _("ignored: first-touch conflict")),
        ("other_state", _("accepted in another state")),
    ]

    referral = models.ForeignKey(
        Referral,
        verbose_name=_("referral"),
        on_delete=models.CASCADE,
        related_name="events",
        db_index=False,  # the constraint's index begins with it
    )
    server = models.CharField(_("server"), max_length=ALIAS_LENGTH)
    kind = models.CharField(_("kind"), max_length=16, choices=KINDS)
    server_event_id = models.CharField(_("idempotency key"), max_length=255)
    body = models.BinaryField(_("body"))
    frozen = models.BooleanField(_("body frozen"), default=False)
    state = models.CharField(_("state"), max_length=16, choices=State.choices, default=State.PENDING)
    outcome = models.CharField(_("outcome"), max_length=16, choices=OUTCOMES, blank=True)
    reason = models.CharField(_("reason"), max_length=16, choices=Reason.choices, blank=True)
    due_at = models.DateTimeField(_("due at"))
    claim = models.UUIDField(_("claim"), null=True, blank=True)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    last_status = models.PositiveSmallIntegerField(_("last HTTP status"), null=True, blank=True)
    last_error = models.CharField(_("last error"), max_length=500, blank=True)
    response = models.JSONField(_("last answer"), default=dict, blank=True)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    attempted_at = models.DateTimeField(_("last attempt at"), null=True, blank=True)
    settled_at = models.DateTimeField(_("settled at"), null=True, blank=True)

    class Meta:
        verbose_name = _("outbound event")
        verbose_name_plural = _("outbound events")
        default_permissions = ("view",)
        permissions: ClassVar = [
            ("redeliver_event", "Can redeliver outbound events"),
            ("cancel_event", "Can cancel outbound events"),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["referral", "kind"], name="mmolove_event_once"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["server", "state", "due_at", "id"], name="mmolove_event_due"),
            # Not db_index, which on PostgreSQL makes a second one for LIKE: keys are looked for as a whole.
            models.Index(fields=["server_event_id"], name="mmolove_event_key"),
            # For the admin's filters (state, kind, status class, "needs attention") and its counts.
            models.Index(fields=["state", "kind", "last_status", "id"], name="mmolove_event_state"),
            # For the admin's filter by time.
            models.Index(fields=["created_at"], name="mmolove_event_created"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.server_event_id} ({self.state})"

    @property
    def open(self) -> bool:
        """Whether it may still be sent without anybody's doing."""
        return self.state in (self.State.PENDING, self.State.WAITING)

    @property
    def sent(self) -> bool:
        """Whether MMOLove may have recorded it: attempted without a definite refusal, or claimed by a worker."""
        return self.frozen or self.claim is not None


class DeliveryAttempt(models.Model):
    """One request with a real event. Dry runs leave no row."""

    event = models.ForeignKey(
        OutboundEvent, verbose_name=_("event"), on_delete=models.CASCADE, related_name="delivery_attempts"
    )
    started_at = models.DateTimeField(_("started at"))
    duration_ms = models.PositiveIntegerField(_("duration in ms"))
    signed_at = models.BigIntegerField(_("signature time"))
    status = models.PositiveSmallIntegerField(_("HTTP status"))
    answer = models.TextField(_("answer"), blank=True)
    error = models.CharField(_("error"), max_length=500, blank=True)
    late = models.BooleanField(_("late"), default=False)

    class Meta:
        verbose_name = _("delivery attempt")
        verbose_name_plural = _("delivery attempts")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"Attempt {self.pk}: HTTP {self.status}"


class Reward(models.Model):
    """The referrer's reward for one referral: falls due once, is granted once."""

    class State(models.TextChoices):
        DUE = "due", _("due")
        GRANTED = "granted", _("granted")
        CANCELLED = "cancelled", _("cancelled")

    referral = models.OneToOneField(
        Referral, verbose_name=_("referral"), on_delete=models.CASCADE, related_name="reward"
    )
    state = models.CharField(_("state"), max_length=16, choices=State.choices, default=State.DUE)
    due_at = models.DateTimeField(_("due at"))
    attempts = models.PositiveIntegerField(_("failed attempts"), default=0)
    last_error = models.CharField(_("last error"), max_length=500, blank=True)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    granted_at = models.DateTimeField(_("granted at"), null=True, blank=True)

    class Meta:
        verbose_name = _("reward")
        verbose_name_plural = _("rewards")
        default_permissions = ("view",)
        permissions: ClassVar = [("retry_reward", "Can retry rewards at once")]
        indexes: ClassVar = [models.Index(fields=["state", "due_at"], name="mmolove_reward_due")]

    def __str__(self) -> str:
        return f"Reward of referral {self.referral_id} ({self.state})"


class ServerHealth(models.Model):
    """The circuit breaker of one MMOLove server. No row means open. Written on change only."""

    class State(models.TextChoices):
        OPEN = "open", _("open")
        PAUSED = "paused", _("paused")  # only a dry run leaves, at probe_at
        HALF_OPEN = "half_open", _("half open")  # the dry run passed; one real event is confirming it

    server = models.CharField(_("server"), max_length=ALIAS_LENGTH, unique=True)
    state = models.CharField(_("state"), max_length=16, choices=State.choices, default=State.OPEN)
    reason = models.CharField(_("reason"), max_length=500, blank=True)
    since = models.DateTimeField(_("since"))
    probe_at = models.DateTimeField(_("next probe at"), null=True, blank=True)
    probe_interval = models.FloatField(_("probe interval in seconds"), default=0)
    last_success_at = models.DateTimeField(_("last success at"), null=True, blank=True)
    clock_skew = models.FloatField(_("MMOLove's clock ahead of ours, in seconds"), default=0)
    clock_host = models.CharField(_("host with that skew"), max_length=255, blank=True)

    class Meta:
        verbose_name = _("server health")
        verbose_name_plural = _("server health")
        default_permissions = ("view",)
        permissions: ClassVar = [("send_test_event", "Can send test events")]

    def __str__(self) -> str:
        return f"{self.server}: {self.state}"


class Heartbeat(models.Model):
    """When something of a kind last delivered, and where: one row per kind, for ``doctor``."""

    class Kind(models.TextChoices):
        THREAD = "thread", _("a thread of a web process")
        LOOP = "loop", _("mmolove_deliver --loop")
        ONCE = "once", _("mmolove_deliver --once")
        WORKER = "worker", _("a Celery worker")
        BEAT = "beat", _("the sweep of Celery's beat")

    kind = models.CharField(_("kind"), max_length=16, choices=Kind.choices, unique=True)
    host = models.CharField(_("host"), max_length=255)
    seen_at = models.DateTimeField(_("last seen at"))

    class Meta:
        verbose_name = _("sign of life")
        verbose_name_plural = _("signs of life")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.kind} on {self.host}"
