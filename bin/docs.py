"""Renders what docs.exs has collected, about as ExDoc would. `bin/docs` runs it."""

import html
import pathlib
import re
import shutil

from markdown_it import MarkdownIt
from mdit_py_plugins.anchors import anchors_plugin

ROOT = pathlib.Path("_build/docs")
OUTPUT = ROOT / "html"

STYLE = """
body { margin: 0; display: grid; grid-template-columns: 17rem minmax(0, 54rem); font: 16px/1.55 system-ui, sans-serif; color: #222 }
nav { background: #f4f4f7; padding: 1rem; font-size: .85rem; min-height: 100vh } nav h4 { margin: 1rem 0 .2rem } nav a { display: block }
nav a.here { font-weight: bold } main { padding: 1rem 3rem 6rem } a { color: #6b3fa0; text-decoration: none } a:hover { text-decoration: underline }
pre { background: #f4f4f7; padding: .8rem 1rem; overflow-x: auto; border-radius: 6px; font-size: .85rem } code { font-family: ui-monospace, monospace; font-size: .9em }
:not(pre) > code { background: #f4f4f7; padding: .1em .3em; border-radius: 4px } pre.mermaid { background: none }
table { border-collapse: collapse; font-size: .92rem } td, th { border: 1px solid #ddd; padding: .35rem .6rem; vertical-align: top; text-align: left }
img { max-width: 100% } h1, h2, h3 { line-height: 1.25 } h2 { margin-top: 2.2rem; border-bottom: 1px solid #eee }
"""

SCRIPT = """
<script src="mermaid/mermaid.min.js"></script>
<script>if (window.mermaid) mermaid.initialize({startOnLoad: true})</script>
"""


def slug(title):
    return re.sub(r"\W+", "-", title).strip("-").lower()


def resolve(path, link, names):
    """Where a link of a page leads among the rendered files."""
    target, separator, anchor = link.partition("#")
    if re.match(r"[a-z]+:", link) or not target:
        return link
    there = (pathlib.Path.cwd() / path).parent / target
    there = str(there.resolve().relative_to(pathlib.Path.cwd()))
    return names[there] + separator + anchor if there in names else "../../../" + there


def main():
    pages = [line.split("\t") for line in (ROOT / "source/pages.tsv").read_text().splitlines()]
    names = {path: name for _, path, _, name in pages}
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    if (ROOT / "mermaid").exists():
        shutil.copytree(ROOT / "mermaid", OUTPUT / "mermaid")
    markdown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    markdown.use(anchors_plugin, max_level=4, slug_func=slug)

    def fence(self, tokens, index, options, env):
        token = tokens[index]
        language = token.info.split()[0] if token.info.strip() else ""
        if language == "mermaid":
            return f'<pre class="mermaid">{html.escape(token.content)}</pre>\n'
        return f'<pre><code class="{language}">{html.escape(token.content)}</code></pre>\n'

    def code(self, tokens, index, options, env):
        text = tokens[index].content
        found = re.fullmatch(r"(?:[ct]:)?(NetRunner(?:\.[A-Z]\w*)*)(?:\.([a-z_]\w*[?!]?/\d+))?", text)
        shown = f"<code>{html.escape(text)}</code>"
        return f'<a href="{names[found[1]]}">{shown}</a>' if found and found[1] in names else shown

    markdown.add_render_rule("fence", fence)
    markdown.add_render_rule("code_inline", code)
    for _, path, source, name in pages:
        tokens = markdown.parse((ROOT / "source" / source).read_text())
        for token in tokens:
            for child in token.children or []:
                for attribute in ("href", "src"):
                    if child.attrGet(attribute):
                        child.attrSet(attribute, resolve(path, child.attrGet(attribute), names))
        body = markdown.renderer.render(tokens, markdown.options, {})
        navigation, last = "", None
        for other_group, other, _, other_name in pages:
            if other_group != last:
                navigation, last = navigation + f"<h4>{html.escape(other_group)}</h4>", other_group
            here = ' class="here"' if other == path else ""
            title = other if other_name == other + ".html" else pathlib.Path(other).stem.replace("_", " ")
            navigation += f'<a href="{other_name}"{here}>{html.escape(title)}</a>'
        (OUTPUT / name).write_text(
            f'<!doctype html><meta charset="utf-8"><title>{html.escape(path)}</title><style>{STYLE}</style>'
            f"<nav>{navigation}</nav><main>{body}</main>{SCRIPT}"
        )
    print(f"{len(pages)} pages: {OUTPUT / 'readme.html'}")


main()
