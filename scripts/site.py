"""What MkDocs is told beyond mkdocs.yml: README and changelog are pages, other files are named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the pages that lie above docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links between pages follow them to where they are; a file that is no page is named."""
    above = {there: name for name, there in PAGES.items()}.get(page.file.src_uri)
    folder = ROOT if above else ROOT / "docs"

    def mended(link: re.Match[str]) -> str:
        picture, text, target, anchor = link[1], link[2], link[3], link[4] or ""
        if re.match(r"[a-z]+:", target) or target.startswith("/"):
            return link[0]
        path = (folder / target).resolve()
        if not path.exists():
            raise PluginError(f"{above or page.file.src_uri}: {target} does not exist")
        name = path.relative_to(ROOT).as_posix()
        if name in PAGES:
            return f"[{text}]({PAGES[name]}{anchor})"
        if path.is_file() and name.startswith("docs/"):
            return f"{picture}[{text}]({name.removeprefix('docs/')}{anchor})"
        return text if name in text else f"{text} (`{name}`)"

    return _LINK.sub(mended, markdown)
