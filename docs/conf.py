"""Build the documentation with ``make docs``; the build needs no network."""

import builtins
import importlib
import sys
from pathlib import Path
from typing import Any

from docutils import nodes

import celery_daemons

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "celery_daemons"
author = "celery_daemons contributors"
version = release = celery_daemons.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "command_help"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_title = f"celery_daemons {release}"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"

nitpick_ignore_regex = [
    # Identifiers: distinct types for the type checker, strings and integers for everybody else.
    ("py:.*", r"(celery_daemons\.domain\.names\.)?(DaemonName|Epoch|Incarnation|LauncherName|NodeName|Token)"),
    # Type variables have no entry of their own.
    ("py:class", r"(celery_daemons\.[\w.]+\.)?[A-Z]{1,2}"),
    # Celery's classes, named as the annotations name them.
    ("py:class", "AsyncResult|Celery|Signature"),
    # The client is documented by the calls of `Daemons`; types of the decorator are in a table.
    (
        "py:class",
        r"celery_daemons\.client\.\w+\.(Async)?(ClusterClient|Lookups)|(celery_daemons\.\S+\.)?LauncherDecorator",
    ),
]


#: Classes of results and arguments that docstrings and annotations name by their short names.
_DOCUMENTED = {
    "FencedRedis": "celery_daemons.store.fence.FencedRedis",
    "LauncherOptions": "celery_daemons.domain.options.LauncherOptions",
}


def _text_of(target: str, contnode: nodes.Element) -> nodes.Element | None:
    """Return plain text for a name of the standard library or of Celery: the build links to no other site."""
    head = target.partition(".")[0]
    known = head in sys.stdlib_module_names or head in ("celery", "click", "redis") or hasattr(builtins, target)
    return contnode if known else None


def _resolve(app: Any, env: Any, node: Any, contnode: nodes.Element) -> nodes.Element | None:
    """Resolve a reference that Sphinx cannot: a public class under the name of its module, or a foreign name."""
    if node.get("refdomain") != "py":
        return None
    target = node.get("reftarget", "")
    short = target.rpartition(".")[2]
    full = f"celery_daemons.{short}" if short in celery_daemons.__all__ else _DOCUMENTED.get(short)
    if full is None:
        return _text_of(target, contnode)
    resolved: nodes.Element | None = env.get_domain("py").resolve_xref(
        env, node["refdoc"], app.builder, "obj", full, node, contnode
    )
    return resolved


def setup(app: Any) -> None:
    """Connect the resolver of references."""
    for name in celery_daemons.__all__:
        importlib.import_module(getattr(celery_daemons, name).__module__)
    app.connect("missing-reference", _resolve)
