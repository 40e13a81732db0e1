"""The text of documents: HTML and Word as Markdown, so that headings are kept; PDF page by page.

Source: PDFium (Chromium's PDF library) by pypdfium2; mammoth, which reads Word's styles; markdownify over Beautiful
Soup. They are the extra `documents`.
"""

import importlib.util
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from nestvec.errors import FormatError
from nestvec.system.extras import how_to_install

# Of a page, what is no text for readers.
LEFT_OUT: Final = ("script", "style", "noscript", "template", "head", "nav", "svg")


def html_text(content: bytes) -> str:
    """Return the text of an HTML page as Markdown, without scripts, styles and navigation.

    Raises:
        ValueError: It cannot be read.
    """
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    try:
        soup = BeautifulSoup(content, "html.parser")
        for element in soup(list(LEFT_OUT)):
            element.decompose()
        converter = MarkdownConverter(
            heading_style="ATX",
            escape_asterisks=False,
            escape_underscores=False,
            strip=["img", "a"],
        )
        return _tidy(converter.convert_soup(soup))
    except RecursionError as error:
        raise ValueError("its elements are nested too deep") from error


def docx_text(content: bytes) -> str:
    """Return the text of a Word document as Markdown.

    Raises:
        ValueError: It cannot be read.
    """
    import mammoth

    try:
        html = mammoth.convert_to_html(io.BytesIO(content)).value
    except Exception as error:
        raise ValueError(f"not a Word document ({type(error).__name__})") from error
    return html_text(html.encode())


def pdf_text(content: bytes) -> str:
    """Return the text of a PDF, a blank line between pages; pages that are images have none.

    Raises:
        ValueError: It cannot be read.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        raise ValueError(f"not a PDF that can be read ({error})") from error
    try:
        pages = []
        for page in document:
            text = page.get_textpage()
            # PDFium marks the hyphen at a line's end, and gives characters beyond 16 bits as pairs of surrogates.
            raw = text.get_text_range().replace("\ufffe", "").encode("utf-16-le", "surrogatepass")
            pages.append(_tidy(raw.decode("utf-16-le", "replace")))
            text.close()
            page.close()
        return "\n\n".join(page for page in pages if page)
    except pypdfium2.PdfiumError as error:
        raise ValueError(f"a page cannot be read ({error})") from error
    finally:
        document.close()


def _tidy(text: str) -> str:
    """The text with line feeds for other line ends, no spaces at their ends, and no more than one blank line."""
    lines = [line.rstrip() for line in text.splitlines()]
    kept = [
        line for number, line in enumerate(lines) if line or (number and lines[number - 1].strip())
    ]
    return "\n".join(kept).strip()


@dataclass(frozen=True, slots=True)
class Extractor:
    """What reads a kind of document.

    Attributes:
        text: Returns the text of a file's bytes; raises ValueError where it cannot be read.
        packages: The modules it needs.
    """

    text: Callable[[bytes], str]
    packages: tuple[str, ...]


HTML: Final = Extractor(html_text, ("bs4", "markdownify"))
EXTRACTORS: Final[Mapping[str, Extractor]] = {
    ".html": HTML,
    ".htm": HTML,
    ".docx": Extractor(docx_text, ("mammoth", "bs4", "markdownify")),
    ".pdf": Extractor(pdf_text, ("pypdfium2",)),
}


def check_extractor(kind: str) -> None:
    """Refuse a kind of document whose reader is not installed.

    Raises:
        FormatError: It is not; the error says how to get it.
    """
    extractor = EXTRACTORS.get(kind)
    for package in extractor.packages if extractor is not None else ():
        if importlib.util.find_spec(package) is None:
            raise FormatError(f"{kind} files need {package}: {how_to_install('documents')}")
