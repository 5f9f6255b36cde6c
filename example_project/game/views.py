"""The portal's pages. Two lines of them know about referrals: ``mark_qualified`` and ``share_link``."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from django_mmolove_referral import mark_qualified, share_link

from .forms import TrainingForm
from .models import MAX_LEVEL, MILESTONE, Character, GoldEntry
from .receivers import GOLD


class PlayerRequest(HttpRequest):
    """What ``login_required`` lets through."""

    user: User


def home(request: HttpRequest) -> HttpResponse:
    return render(request, "game/home.html", {"milestone": MILESTONE, "gold": GOLD})


def register(request: HttpRequest) -> HttpResponse:
    """An ordinary sign-up. The middleware saw the visitor's token; creating the account does the rest."""
    if request.user.is_authenticated:
        return redirect("character")
    form: UserCreationForm[User] = UserCreationForm(request.POST or None)
    if not form.is_valid():
        return render(request, "game/register.html", {"form": form})
    with transaction.atomic():
        # The referral is written in this transaction, too: with the account or not at all.
        user = form.save()
        Character.objects.create(user=user)
    login(request, user)
    messages.success(request, f"Welcome to Emberfall, {user}!")
    return redirect("character")


@login_required
def character(request: PlayerRequest) -> HttpResponse:
    character = Character.of(request.user)
    if request.method == "POST":
        return _train(request, character)
    return render(
        request,
        "game/character.html",
        {
            "character": character,
            "milestone": MILESTONE,
            "gold": GOLD,
            "next_level": min(character.level + 1, MAX_LEVEL),
            "invite_link": share_link(request.user, request),
            "invited_by": request.user.mmolove_referrals.select_related("referrer").first(),
            "friends": request.user.mmolove_invited.select_related("user").order_by("-created_at"),
        },
    )


def _train(request: PlayerRequest, character: Character) -> HttpResponse:
    form = TrainingForm(request.POST)
    if not form.is_valid():
        messages.error(request, "No one has ever reached that level.")
        return redirect("character")
    level = form.cleaned_data["level"]
    with transaction.atomic():
        rose = Character.objects.filter(pk=character.pk, level__lt=level).update(level=level)
        if level >= MILESTONE:
            # At every level from here on: any number of calls makes one event, and players whom nobody invited
            # are left alone.
            mark_qualified(request.user)
    if rose:
        messages.success(request, f"You reached level {level}.")
    else:
        messages.info(request, f"You have been at level {level} before.")
    return redirect("character")


def rewards(request: HttpRequest) -> HttpResponse:
    """The gold that ``referral_qualified`` gave (see ``receivers``)."""
    entries = GoldEntry.objects.select_related("character__user", "friend")[:100]
    own = Character.of(request.user) if request.user.is_authenticated else None
    return render(
        request,
        "game/rewards.html",
        {"entries": entries, "character": own, "milestone": MILESTONE, "reward": GOLD},
    )
