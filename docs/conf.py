"""The documentation site: `make docs` builds it into dist/docs; every warning is an error."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import django
from django.conf import settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# Reference pages import the package, models included.
settings.configure(
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django_celery_beat",
        "django_agentexec",
        "django_agentexec.schedules",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.devnull}},
    SECRET_KEY="only-for-the-documentation",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

import django_agentexec  # noqa: E402  # needs the settings

project = "django-agentexec"
author = "The maintainers of django-agentexec"
copyright = f"{author}. MIT licence"
version = release = django_agentexec.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx", "sphinx_llms_txt"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["benchmarks/*"]
default_role = "literal"  # as in Markdown: `name` is code

html_theme = "furo"
html_title = "django-agentexec"
html_static_path: list[str] = []
html_theme_options = {
    "source_repository": "https://github.com/django-agentexec/django-agentexec/",
    "source_branch": "main",
    "source_directory": "docs/",
}

myst_enable_extensions = ["colon_fence", "attrs_inline"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True}

# Nothing is downloaded while building; links to Python and Django are written out.
intersphinx_mapping: dict[str, tuple[str, str | None]] = {}

llms_txt_title = "django-agentexec"
llms_txt_summary = "Run AI agents in Django, in the background, and lose nothing."
