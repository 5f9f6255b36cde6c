from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User

from django_mmolove_referral.admin import ReferralInline

from .models import Character, GoldEntry

admin.site.register([Character, GoldEntry])
admin.site.unregister(User)


@admin.register(User)
class PlayerAdmin(UserAdmin):  # type: ignore[type-arg]  # generic for the type checker only
    """Django's own, and below it by whom the player came."""

    inlines = (ReferralInline,)
