from django.contrib.auth import login
from django.contrib.auth.models import User
from django.http import HttpResponse

from django_mmolove_referral import mark_qualified
from django_mmolove_referral.models import Referral, Reward


def register(request):
    if request.method == "POST":
        user = User.objects.create_user(request.POST["username"])
        login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse("welcome")


def level_up(request):
    if int(request.POST["level"]) >= 10:
        mark_qualified(request.user)
    return HttpResponse("up")


def player(request, pk):
    invited = Referral.objects.filter(referrer=pk)
    rewarded = invited.filter(reward__state=Reward.State.GRANTED)
    return HttpResponse(f"invited: {invited.count()}, rewarded: {rewarded.count()}")
