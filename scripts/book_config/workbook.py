"""What the book needs beyond jupyter-book: formulas without a script from elsewhere, source with anchors."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.directives.code import LiteralInclude
from sphinx.writers.html5 import HTML5Translator


class Source(LiteralInclude):
    """A literalinclude whose line 12 is `#line-12`."""

    def run(self) -> list[nodes.Node]:
        found = super().run()
        for block in (block for node in found for block in node.findall(nodes.literal_block)):
            block["highlight_args"] |= {"lineanchors": "line"}
        return found


def visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    """Writes MathML, which browsers show by themselves."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    """The same for a formula on a line of its own."""
    translator.body.append(f'<div class="formula">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("source", Source)
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
