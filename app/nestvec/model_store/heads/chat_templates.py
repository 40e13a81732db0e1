"""The template of pairs in a folder's chat template: the few forms of it that re-rankers are published with.

A chat template is a program in Jinja. Ours is not run: texts, `set`, and the queries for a message by its role are read
as they are written, and everything else makes it a template that is not known.

Source: the chat template of Qwen3-Reranker; vLLM's score templates; `InputFormatter.pair_to_messages` of
sentence-transformers 6.2; Jinja's lexer with `trim_blocks` and `lstrip_blocks`, as transformers opens it.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from nestvec.engine.text.pair_template import PairTemplate, Slot
from nestvec.errors import FormatError
from nestvec.model_store.sources.file_names import CHAT_TEMPLATE_FILE, TOKENIZER_CONFIG_FILE
from nestvec.system.json_files import read_json

MAX_TEMPLATE_CHARS: Final = 20_000
ROLES: Final[Mapping[str, Slot]] = {
    "system": Slot.INSTRUCTION,
    "query": Slot.QUERY,
    "document": Slot.DOCUMENT,
}
# A part of the template that Jinja reads: a comment, a statement or an expression, each with signs that strip blanks.
JINJA: Final = re.compile(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
SET: Final = re.compile(r"set\s+(\w+)\s*=\s*(.+)", re.DOTALL)
NAME: Final = re.compile(r"[A-Za-z_]\w*")
TEXT: Final = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
QUOTED: Final = r"""(?:'[^'\\]*'|"[^"\\]*")"""
SELECT: Final = (
    rf"messages\|selectattr\((?:'role'|\"role\"),(?:'eq'|\"eq\"|'equalto'|\"equalto\"),({QUOTED})\)"
)
# The content of the first message of a role, in the two ways that templates write it.
FILTERED: Final = re.compile(
    rf"{SELECT}\|map\(attribute=(?:'content'|\"content\")\)\|first(?:\|default\((.+)\))?", re.DOTALL
)
ATTRIBUTE: Final = re.compile(
    rf"\({SELECT}\|first\)\.content(?:\[0\](?:\.text|\['text'\]|\[\"text\"\]))?"
)


def find_pair_template(
    folder: Path,
    overrides: Mapping[str, Any],
    *,
    speaks_in_messages: bool | None,
    instruction: str,
    needs_template: bool,
) -> PairTemplate | None:
    """Find the template in which a re-ranker reads pairs.

    Args:
        folder: The encoder's folder.
        overrides: Of the model's card, which come first.
        speaks_in_messages: Whether the folder says that pairs go through its chat template; None where it says nothing:
            then one that speaks of queries and documents counts.
        instruction: The folder's own instruction; "" for none.
        needs_template: Whether the model makes no sense without one.

    Returns:
        The template; None for a model that reads two texts.

    Raises:
        FormatError: The template is not known, or there should be one and is none.
    """
    if "pair" in overrides:
        return PairTemplate.from_table(overrides["pair"])
    template = folder_chat_template(folder)
    is_for_pairs = template is not None and has_pair_roles(template)
    if template is not None and is_for_pairs and speaks_in_messages is not False:
        return read_pair_template(template, str(folder), instruction)
    if speaks_in_messages or needs_template:
        raise FormatError(
            f"{folder}: a re-ranker that reads pairs in a template has none for queries and documents; write a card "
            "with overrides.pair.template, with {query} and {document} in it"
        )
    return None


def folder_chat_template(folder: Path) -> str | None:
    """Return a folder's chat template, as transformers finds it; None where it has none.

    Raises:
        FormatError: A file cannot be read.
    """
    path = folder / CHAT_TEMPLATE_FILE
    try:
        if path.is_file():
            return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read") from error
    path = folder / TOKENIZER_CONFIG_FILE
    template = read_json(path).get("chat_template") if path.is_file() else None
    if isinstance(template, list):  # several, by name
        named = [each for each in template if isinstance(each, dict)]
        template = next((e.get("template") for e in named if e.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def has_pair_roles(template: str) -> bool:
    """Whether a chat template speaks of queries and documents, so that it is one for pairs."""
    return all(
        re.search(rf"role[^{{}}]{{0,40}}['\"]{role}['\"]", template[:MAX_TEMPLATE_CHARS])
        for role in ("query", "document")
    )


def read_pair_template(template: str, where: str, instruction: str = "") -> PairTemplate:
    """Read a chat template for pairs.

    Args:
        template: The chat template.
        where: The file that has it, for the error.
        instruction: The folder's own instruction, which stands before the template's; "" for none.

    Raises:
        FormatError: It is written otherwise than is known; says the way out.
    """
    try:
        parts, default = _rendered(template)
        made = PairTemplate(parts, instruction or default)
        made.check()
    except ValueError as error:
        raise FormatError(
            f"{where}: chat_template: {str(error)[:200]!r} is not read; write a card with overrides.pair.template"
        ) from error
    return made


def _rendered(template: str) -> tuple[tuple[str | Slot, ...], str]:
    """Return what a template gives, and the instruction that it has where a call has none.

    Raises:
        ValueError: It is longer than any, or has what is not known; says what.
    """
    if len(template) > MAX_TEMPLATE_CHARS:
        raise ValueError(f"{len(template)} characters")
    names: dict[str, list[str | Slot]] = {}
    defaults: list[str] = []
    parts: list[str | Slot] = []
    for text, code in _pieces(template):
        parts.append(text)
        if code.startswith("{#") or not code:
            continue
        content = code[2:-2].removeprefix("-").removesuffix("-").removeprefix("+").strip()
        if code.startswith("{{"):
            parts += _value(content, names, defaults)
            continue
        statement = SET.fullmatch(content)
        if statement is None:
            raise ValueError(content)
        names[statement[1]] = _value(statement[2].strip(), names, defaults)
    return _joined(parts), defaults[0] if defaults else ""


def _pieces(template: str) -> Iterator[tuple[str, str]]:
    """Cut a template into texts, each with the Jinja part behind it; blanks are stripped as Jinja strips them."""
    template = template.removesuffix("\n")
    at = 0
    code = ""
    for found in (*JINJA.finditer(template), None):
        text = template[at : found.start() if found else len(template)]
        starts_line = at == 0
        if code.endswith(("-}}", "-%}", "-#}")):
            text = text.lstrip()
        elif code.endswith(("%}", "#}")) and text.startswith("\n"):
            text, starts_line = text[1:], True
        code = found[0] if found else ""
        if code[2:3] == "-":
            text = text.rstrip()
        elif code.startswith(("{%", "{#")) and code[2:3] != "+":
            # Blanks before a statement, where nothing else stands on its line.
            before, newline, line = text.rpartition("\n")
            if (newline or starts_line) and not line.strip():
                text = before + newline
        yield text, code
        at = found.end() if found else at


def _value(
    content: str, names: Mapping[str, list[str | Slot]], defaults: list[str]
) -> list[str | Slot]:
    """Return what an expression gives: texts and places, one behind the other.

    Raises:
        ValueError: It is of another form.
    """
    parts: list[str | Slot] = []
    for term in _terms(content):
        literal = TEXT.fullmatch(term)
        if literal is not None:
            parts.append(_unescaped(literal[1] if literal[1] is not None else literal[2]))
        elif NAME.fullmatch(term) and term in names:
            parts += names[term]
        else:
            parts.append(_message(term, defaults))
    return parts


def _terms(content: str) -> Iterator[str]:
    """Cut an expression at the plus signs that stand in no text and no brackets."""
    depth, start, at = 0, 0, 0
    while at < len(content):
        literal = TEXT.match(content, at)
        if literal is not None:
            at = literal.end()
            continue
        depth += (content[at] in "([") - (content[at] in ")]")
        if content[at] == "+" and depth == 0:
            yield content[start:at].strip()
            start = at + 1
        at += 1
    yield content[start:].strip()


def _message(term: str, defaults: list[str]) -> Slot:
    """Return the place that a query for a message stands for; notes its default.

    Raises:
        ValueError: It is no such query, or of another role.
    """
    compact = _without_blanks(term)
    found = FILTERED.fullmatch(compact) or ATTRIBUTE.fullmatch(compact)
    if found is None:
        raise ValueError(term)
    slot = ROLES.get(found[1][1:-1])
    if slot is None:
        raise ValueError(term)
    default = found[2] if found.re is FILTERED else None
    if default is not None:
        literal = TEXT.match(default)
        if literal is None or default[literal.end() :] not in ("", ",true", ",True"):
            raise ValueError(term)
        if slot is not Slot.INSTRUCTION:
            raise ValueError(term)
        defaults.append(_unescaped(literal[1] if literal[1] is not None else literal[2]))
    return slot


def _without_blanks(term: str) -> str:
    """An expression without the blanks that stand in no text."""
    pieces, at = [], 0
    for literal in TEXT.finditer(term):
        pieces += ["".join(term[at : literal.start()].split()), literal[0]]
        at = literal.end()
    return "".join([*pieces, "".join(term[at:].split())])


def _unescaped(text: str) -> str:
    """A text of Jinja as it is meant.

    Raises:
        ValueError: It has a broken escape.
    """
    try:
        return text.encode("ascii", "backslashreplace").decode("unicode-escape")
    except UnicodeDecodeError as error:
        raise ValueError(text) from error


def _joined(parts: list[str | Slot]) -> tuple[str | Slot, ...]:
    """Parts with neighbouring texts as one."""
    joined: list[str | Slot] = []
    for part in parts:
        if isinstance(part, Slot) or not joined or isinstance(joined[-1], Slot):
            joined.append(part)
        else:
            joined[-1] = str(joined[-1]) + part
    return tuple(part for part in joined if part != "")
