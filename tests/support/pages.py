"""README.md and the pages of docs/, as their readers see them: blocks, links, headings, tables."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import flagsync

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
README = PAGES["README.md"]
PACKAGE = Path(flagsync.__file__).parent
REPOSITORY = "https://github.com/flagsync/flagsync/blob/main/"


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, language, content, and the line on which the content begins."""

    page: str
    language: str
    content: str
    line: int

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The name of the file that it is to be saved as, if its first line says one."""
        found = re.match(r"# ([\w.]+\.py)\n", self.content)
        return found[1] if found else None


def blocks(language: str = r"\w*", page: str = "") -> list[Block]:
    """Return the blocks in a language, of one page or all."""
    return [
        Block(name, found[1], found[2], text.count("\n", 0, found.start()) + 2)
        for name, text in PAGES.items()
        if page in ("", name)
        for found in re.finditer(rf"^```({language})\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def prose(text: str) -> str:
    """Return a page without its blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Return what links to headings of a page may name."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def rows(page: str, heading: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the tables under a heading of the second level."""
    section = re.split(r"^## ", PAGES[page].partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[
        0
    ]
    for line in section.splitlines():
        if line.startswith("|") and not re.match(r"\|[-|]+$", line):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def texts() -> Iterator[list[str]]:
    """Yield every text in the package, in the pieces between what is inserted into it."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.split(r"\{[^}]*\}", node.value)
            elif isinstance(node, ast.JoinedStr):
                yield _pieces(node)


def _pieces(node: ast.JoinedStr) -> list[str]:
    pieces = [""]
    for part in node.values:
        if isinstance(part, ast.Constant):
            pieces[-1] += str(part.value)
        else:
            pieces.append("")
    return pieces


def says(pieces: list[str], message: str) -> bool:
    """Return whether a message can be a part of what a text says; an ellipsis at its end is not."""
    message = message.rstrip("… ")
    return any(message in piece for piece in pieces) or any(
        _spans(pieces[first : last + 1], message) for first, last in combinations(range(len(pieces)), 2)
    )


def _spans(pieces: list[str], message: str) -> bool:
    """Return whether a message begins in the first piece and ends in the last, and is no mere insertion."""
    first, *middle, last = pieces
    begin = next(first[cut:] for cut in range(len(first) + 1) if message.startswith(first[cut:]))
    end = next(last[:cut] for cut in range(len(last), -1, -1) if message.endswith(last[:cut]))
    parts = (begin, *middle, end)
    is_alike = re.fullmatch(".+?".join(map(re.escape, parts)), message) is not None
    return is_alike and 2 * sum(map(len, parts)) >= len(message)
