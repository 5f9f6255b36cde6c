from django.contrib import admin

from .models import Character, GoldEntry

admin.site.register([Character, GoldEntry])
