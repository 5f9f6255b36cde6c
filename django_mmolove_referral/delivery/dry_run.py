"""A signed dry run on somebody's behalf: the test event of the admin and of the shell."""

from __future__ import annotations

from dataclasses import dataclass

from .. import protocol
from ..client import Attempt
from ..conf import conf
from ..masking import masked
from . import dispatch, health
from .claim import Subject, probe_subject
from .lane import lane, transport
from .send import Probe

NO_TOKEN = "test-event"  # noqa: S105  # what stands where a token would, as long as there is none


@dataclass(frozen=True)
class DryRun:
    """What was sent and what came back, with the token masked."""

    server: str
    endpoint: str
    #: The signature header's value.
    signature: str
    body: str
    attempt: Attempt
    #: The answer's body.
    answer: str
    passed: bool
    #: Nothing can be concluded: MMOLove does not know the token, and never did.
    undecided: bool


def dry_run(server: str, *, using: str | None, wake: bool = True) -> DryRun:
    """Send one, now, in this thread; a paused server that passes is probed and opened by the next drain.

    ``using`` is the database, ``None`` if there is none to ask for a token. ``wake`` has this process drain, if it is
    one that does. Raises :class:`~django_mmolove_referral.conf.ConfigError` without usable credentials.
    """
    credentials = conf.server(server).credentials()
    subject = (using and probe_subject(server, using=using)) or Subject(NO_TOKEN, proven=False)
    probed = lane(server).channel.probe(transport(1), credentials, subject)
    attempt = probed.attempt
    if using and probed.result is not Probe.FAILED:
        health.probe_soon(server, using=using)
        if wake:
            dispatch.wake()
    return DryRun(
        server=server,
        endpoint=credentials.endpoint,
        signature=protocol.sign(credentials.secret, probed.body, attempt.signed_at, credentials.key_id),
        body=masked(probed.body.decode(), subject.token),
        attempt=attempt,
        answer=attempt.body.decode("utf-8", "replace")[:4096],
        passed=probed.result is Probe.PASSED,
        undecided=probed.result is Probe.UNDECIDED,
    )
