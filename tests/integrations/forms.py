"""The portal's own sign-up form, word for word the documentation's."""

from __future__ import annotations

from tests.documented import names
from tests.pages import code

SignUpForm = names(code("integrations/allauth.md", "class SignUpForm"))["SignUpForm"]
