"""What of an account leaves the portal: the identity that MMOLove is told, and the code in a share link."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import FunctionType
from typing import Any

from django.apps import AppConfig
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage
from django.core.exceptions import FieldDoesNotExist
from django.db.models import CharField, EmailField
from django.utils.translation import gettext as _

from ..conf import SETTING, ConfigError, conf
from .message import warning


def check_accounts(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W011, W012, W013."""
    try:
        identity, code = conf.referee_identity_field, conf.referrer_code_field
    except ConfigError:
        return []  # check_settings says why
    found = []
    for key, name in (("REFEREE_IDENTITY", identity), ("REFERRER_CODE", code)):
        if name is not None and (problem := _no_value(name)):
            found.append(_unusable(key, name, problem))
    if identity is not None and (why := _changes(identity)):
        values = {"setting": SETTING, "name": identity, "why": why}
        text = _(
            "%(setting)s['REFEREE_IDENTITY'] = '%(name)s' is %(why)s, which can change: then the account is another "
            "one to MMOLove, and may be referred again."
        )
        hint = _("Remove %s['REFEREE_IDENTITY'] (the primary key is used), or name what an account keeps for ever.")
        found.append(warning(11, text % values, hint % SETTING))
    if code is not None and _is_email(code):
        text = _("%(setting)s['REFERRER_CODE'] = '%(name)s' puts players' e-mail addresses into their share links.")
        hint = _("Remove %s['REFERRER_CODE'] (the primary key is used), or name what everybody may know.")
        found.append(warning(12, text % {"setting": SETTING, "name": code}, hint % SETTING))
    return found


def _unusable(key: str, name: str, problem: str) -> CheckMessage:
    values = {"setting": SETTING, "key": key, "name": name, "problem": problem}
    hint = _('Use "pk", another attribute of the account, or the dotted path of a callable(user).')
    return warning(13, _("%(setting)s['%(key)s'] = '%(name)s': %(problem)s.") % values, hint)


def _no_value(name: str) -> str:
    """Why ``name`` gives no value of an account; ``""`` if it does."""
    model = get_user_model()
    if not hasattr(model, name):
        return _("the user model %s has no such attribute") % model._meta.label
    if isinstance(inspect.getattr_static(model, name), (FunctionType, classmethod, staticmethod)):
        return _("that is a method of the user model %s, and no value") % model._meta.label
    return ""


def _changes(name: str) -> str:
    """What ``name`` is if people change it; ``""`` if they do not."""
    if _is_email(name):
        return _("an e-mail address")
    model = get_user_model()
    named = name in (model.USERNAME_FIELD, "username")
    # A number or a UUID by which people log in is given to them.
    return _("the name that people log in with") if named and isinstance(_field(name), CharField) else ""


def _is_email(name: str) -> bool:
    return name in ("email", get_user_model().get_email_field_name()) or isinstance(_field(name), EmailField)


def _field(name: str) -> object:
    meta = get_user_model()._meta
    try:
        return meta.pk if name == "pk" else meta.get_field(name)
    except FieldDoesNotExist:
        return None
