"""Sections of a Markdown text.

Source: headings by CommonMark's own grammar (markdown-it-py), so that a `#` in a code block is none.
"""

import itertools

from nestvec.engine.splitting.spans import Check, Span, go_on


def sections(text: str, check: Check = go_on) -> list[Span]:
    """Cut a Markdown text into sections, each from a heading to the next; what stands before the first is one too.

    Args:
        text: The text.
        check: Called at each line that may begin a block; what it raises ends the work.
    """
    from markdown_it import MarkdownIt

    def begins_no_block(*_: object) -> bool:
        check()
        return False

    line_starts = [0]
    for line in text.splitlines(keepends=True):
        line_starts.append(line_starts[-1] + len(line))
    edges = {0, len(text)}
    parser = MarkdownIt("commonmark")
    # What is inside paragraphs is of no interest.
    parser.core.ruler.enableOnly(["normalize", "block"])
    # Rules are asked at each line, also within paragraphs, quotes and lists, so that one can end the parser's work.
    parser.block.ruler.before(
        "code",
        "check",
        begins_no_block,
        {"alt": ["paragraph", "reference", "blockquote", "list"]},
    )
    for token in parser.parse(_lines_as_parsed(text)):
        if token.type == "heading_open" and token.level == 0 and token.map is not None:
            edges.add(line_starts[token.map[0]])
    ordered = sorted(edges)
    return list(itertools.pairwise(ordered))


def _lines_as_parsed(text: str) -> str:
    """The text with each line ended by a line feed: the parser knows fewer line ends than Python."""
    return "".join(line + "\n" for line in text.splitlines())
