"""The portal's two pages that have to do with referrals."""

from django.http import HttpRequest, HttpResponse

from django_mmolove_referral import mark_qualified, share_link


def share(request: HttpRequest) -> HttpResponse:
    return HttpResponse(share_link(request.user, request))


def level_up(request: HttpRequest) -> HttpResponse:
    event = mark_qualified(request.user)
    return HttpResponse(event.state if event else "")
