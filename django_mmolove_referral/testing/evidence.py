"""What a test has seen beside the portal's tables: MMOLove's side, the log, what waits for a commit."""

from __future__ import annotations

from ..sandbox import Entry, Sandbox
from .commit import CommitHooks
from .trouble import Overheard


class Evidence:
    """Set when the kit starts."""

    #: The MMOLove itself, for what the kit has no word for.
    sandbox: Sandbox
    overheard: Overheard
    hooks: CommitHooks

    def __init__(self) -> None:
        #: Tokens of other people's referrals.
        self._foreign: set[str] = set()

    @property
    def sent(self) -> list[Entry]:
        """The requests with events that reached MMOLove, oldest first, whatever it answered; no dry runs."""
        return [entry for entry in self.sandbox.events(test=False) if entry.token not in self._foreign]

    def minted(self, token: str) -> bool:
        """Whether ``token`` is this MMOLove's."""
        return any(entry.token == token for entry in self.sandbox.log if entry.kind == "clicked")
