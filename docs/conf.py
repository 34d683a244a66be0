"""The documentation site: README, guides, catalogues made from the code and the data, API reference."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import catalogues
import docutils.nodes
import latex2mathml.converter

project = "bayescale"
author = copyright = "The bayescale authors"
version = release = version_of("bayescale")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "_generated/*.inc.md"]
default_role = "py:obj"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
# `-D nb_execution_mode=off` builds the site without running the notebooks.
nb_execution_mode = "auto"
nb_execution_timeout = 900
nb_execution_raise_on_error = True

autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "pydata_sphinx_theme"
html_title = "bayescale"
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
}

html_math_renderer = "mathml"

catalogues.write(Path(__file__).parent / "_generated")


def setup(app):
    """Typeset formulas as MathML, which browsers draw without scripts or a network."""

    def inline(writer, node):
        writer.body.append(latex2mathml.converter.convert(node.astext()))
        raise docutils.nodes.SkipNode

    def block(writer, node):
        writer.body.append(latex2mathml.converter.convert(node.astext(), display="block"))
        raise docutils.nodes.SkipNode

    app.add_html_math_renderer("mathml", (inline, None), (block, None))
