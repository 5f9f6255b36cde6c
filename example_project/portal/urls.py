from django.conf import settings
from django.contrib import admin
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", include("game.urls")),
    path("", include("django_mmolove_referral.urls")),  # /join/<code>/, where share_link() leads
    path("behind-the-scenes/", include("tour.urls")),
    path("admin/", admin.site.urls),
    path("favicon.ico", RedirectView.as_view(url=static("game/flame.svg"))),  # for pages that name none: the admin's
]
if hasattr(settings, "MMOLOVE_SANDBOX"):
    urlpatterns.append(path("sandbox/", include("django_mmolove_referral.sandbox.urls")))
