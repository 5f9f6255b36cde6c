"""The delivery log in Django's admin: read-only, but for the few things that an operator may do."""

from __future__ import annotations

from django.contrib import admin

from ..models import OutboundEvent, Referral, Reward, ServerHealth
from .events import OutboundEventAdmin
from .referrals import ReferralAdmin
from .rewards import RewardAdmin
from .servers import ServerHealthAdmin
from .users import ReferralInline

admin.site.register(Referral, ReferralAdmin)
admin.site.register(OutboundEvent, OutboundEventAdmin)
admin.site.register(Reward, RewardAdmin)
admin.site.register(ServerHealth, ServerHealthAdmin)

__all__ = ["OutboundEventAdmin", "ReferralAdmin", "ReferralInline", "RewardAdmin", "ServerHealthAdmin"]
