"""Sphinx configuration. Build with ``python -m sphinx -W -b html docs docs/_build/html`` from the repository."""

from certified import __version__

project = "certified"
author = "The certified authors"
copyright = author
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",  # python -m sphinx -b doctest docs docs/_build/doctest runs every example
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas render without a network
    "sphinx_gallery.gen_gallery",
    "numpydoc",
]
exclude_patterns = ["_build", "examples"]
templates_path = ["_templates"]
default_role = "py:obj"

autosummary_generate = True
autosummary_ignore_module_all = False  # a module is what it exports
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # scikit-learn's docstrings refer to labels of scikit-learn's own pages
autodoc_default_options = {
    # Members that our own base classes bring are shown; those of the classes named here are not.
    "inherited-members": "BaseEstimator,ClassifierMixin,RegressorMixin,TransformerMixin,MetaEstimatorMixin,"
    "OneToOneFeatureMixin,ClassNamePrefixFeaturesOutMixin,_BaseComposition,BaseException,Mapping,tuple,object",
    # scikit-learn writes these into every subclass.
    "exclude-members": "get_metadata_routing,set_fit_request,set_partial_fit_request,set_predict_request,"
    "set_predict_proba_request,set_score_request,set_transform_request,set_inverse_transform_request,set_output",
}
numpydoc_show_class_members = False  # autodoc lists them

html_theme = "pydata_sphinx_theme"
html_title = "certified"
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
html_sidebars = {"index": [], "tutorial": []}
html_show_sourcelink = False
html_copy_source = False

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"style\.py",
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "reset_modules": (),
    "plot_gallery": "True",
}
suppress_warnings = ["config.cache"]

# What the examples of functions in a module take for granted.
_MODULES = ("accounting", "audit", "audit.attacks", "audit.bounds", "testing")
doctest_global_setup = "import numpy as np\nfrom certified.extend import subject_hash\n" + "\n".join(
    f"from certified.{module} import *" for module in _MODULES
)
