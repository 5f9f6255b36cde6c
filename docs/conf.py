"""The documentation site: ``sphinx-build -W -b html docs docs/_build/html``, or ``tox run -e docs``.

The pages are plain Markdown that reads as well on GitHub. Nothing is fetched from the network.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import django
from django.conf import settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# The API page reads docstrings, and the models can only be imported by a set-up Django.
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django_mmolove_referral"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()

project = "django-mmolove-referral"
author = "The authors of django-mmolove-referral"
copyright = author  # noqa: A001  # Sphinx's name for it
try:
    release = metadata.version(project)
except metadata.PackageNotFoundError:
    release = "unreleased"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}

myst_enable_extensions = ["attrs_block", "colon_fence"]
# As on GitHub: every heading down to the fourth level is an anchor by its own words.
myst_heading_anchors = 4

nitpicky = True
nitpick_ignore_regex = [
    # Other projects': their indexes would have to be fetched.
    ("py:.*", r"(collections|datetime|django|types|typing)\..*"),
    ("py:.*", r"(Any|HttpRequest|TracebackType|dict\[str)"),
    # The models are described in tables; what is inside the package has no page.
    ("py:.*", r"django_mmolove_referral\.(models|protocol)\..*"),
]

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 160  # of full names, which are shown short

html_theme = "furo"
html_title = project if release == "unreleased" else f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"sidebar_hide_name": False, "navigation_with_keys": True}
