"""A local MMOLove: the referral contract as a pure class, with a Django-URLs face and a threaded-server face.

It shares no code with the sender (constants aside), so that the two can disagree.
"""

from __future__ import annotations

from .contract import Server
from .core import Sandbox
from .faults import Fault, only_dry_runs, only_real
from .response import Response
from .state import Entry, Referral

__all__ = ["Entry", "Fault", "Referral", "Response", "Sandbox", "Server", "only_dry_runs", "only_real"]
