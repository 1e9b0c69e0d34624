"""Sphinx settings. The build asks no network, so a warning is never the weather's: `make docs` makes it an error."""

from importlib.metadata import version as installed_version

project = "overt"
author = "the overt authors"
project_copyright = "the overt authors"
release = version = installed_version("overt")

extensions = ["sphinx.ext.autodoc", "numpydoc", "myst_parser"]
exclude_patterns = ["_build"]

html_theme = "alabaster"
html_theme_options = {"description": "Experiment tracking, done openly", "fixed_sidebar": True}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
html_show_sourcelink = False

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's Parameters name them, in words
numpydoc_show_class_members = False  # automodule lists them already
