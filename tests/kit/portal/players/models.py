from django.conf import settings
from django.db import models


class Purse(models.Model):
    owner = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    gold = models.IntegerField(default=0)

    def __str__(self):
        return f"{self.gold} gold"
