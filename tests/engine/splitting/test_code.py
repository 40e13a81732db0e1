"""Blocks of code: definitions whole with their comments; inner blocks where one is too long."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.engine.splitting import Splitter, SplitterKind
from nestvec.engine.splitting.code import blocks

PYTHON = '''\
"""A module."""

import os
import sys

# Adds.
@cached
def add(a, b):
    """Add."""

    return a + b
class Box:
    width = 1

    def area(self):
        if self.width:
            return 1

        else:
            return 2

    def name(self):
        return "box"
try:
    main()

except KeyError:
    pass
'''
C = """\
#include <a.h>
int add(int a, int b) {
  return a + b;
}
int main(void)
{
\tif (x) {
\t\tgo();
\t}

\telse {
\t\tstop();
\t}
}
"""


def cut(text: str, size: int = 0) -> list[str]:
    """The chunks of a source file, with words for tokens."""
    starts = [match.start() for match in re.finditer(r"\w+", text)]
    return [text[a:b] for a, b in Splitter(SplitterKind.CODE, size).spans(text, starts)]


def firsts(chunks: list[str]) -> list[str]:
    """The first line of each chunk that is not blank."""
    return [chunk.strip().splitlines()[0] for chunk in chunks]


def test_python() -> None:
    """Each definition is a block, with decorators and comments; else and except stay with what they belong to."""
    assert firsts(cut(PYTHON)) == [
        '"""A module."""',
        "import os",
        "# Adds.",
        "class Box:",
        "try:",
    ]


def test_braces() -> None:
    """A closing brace ends its block, and what stands behind it begins one."""
    assert firsts(cut(C)) == ["#include <a.h>", "int main(void)"]
    assert firsts(cut(C.replace("#include <a.h>\n", "#include <a.h>\n\n"))) == [
        "#include <a.h>",
        "int add(int a, int b) {",
        "int main(void)",
    ]


def test_long_blocks_are_cut_inside() -> None:
    """A block that is too long is cut at its own inner blocks, and short ones fill a chunk up."""
    chunks = cut(PYTHON, size=12)
    assert "".join(chunks) == PYTHON
    assert any(chunk.lstrip().startswith("def name") for chunk in chunks)
    words = [len(re.findall(r"\w+", chunk)) for chunk in chunks]
    assert max(words) <= 12
    assert cut(PYTHON, size=1000) == [PYTHON]


def test_lines_at_last() -> None:
    """Without blank lines and indentation the lines are what is cut at; a long line stays whole."""
    text = "a b c\n" * 4 + "d " * 9 + "\n"
    assert cut(text, size=6) == ["a b c\n" * 2, "a b c\n" * 2, "d " * 9 + "\n"]


LINES = st.sampled_from(
    [
        "a = 1",
        "  b",
        "\tc {",
        "}",
        "  }",
        "else:",
        "",
        " ",
        "def f():",
        "\u2003x",
        "\r",
        "😀",
        "end",
    ]
)


@settings(max_examples=50)
@given(st.lists(LINES, max_size=40).map("\n".join), st.sampled_from([0, 1, 3, 8]))
def test_blocks_are_the_text(text: str, size: int) -> None:
    """Whatever is cut, together it is the text."""
    chunks = cut(text, size)
    assert "".join(chunks) == (text if re.search(r"\w", text) else "")


@pytest.mark.parametrize("text", ["", "\n\n", "  \n\t\n"])
def test_blank(text: str) -> None:
    """A blank file has no block."""
    assert blocks(text) == []
