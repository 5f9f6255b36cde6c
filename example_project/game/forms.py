from django import forms

from .models import MAX_LEVEL


class TrainingForm(forms.Form):
    # The level to reach, not the number of levels: a double click reaches it once.
    level = forms.IntegerField(min_value=1, max_value=MAX_LEVEL)
