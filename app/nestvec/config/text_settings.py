"""Settings of the form in which texts and records reach a model: tables `text` of server, model and alias."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

from nestvec.config.field_types import parse_table
from nestvec.engine.text.preparation.record_template import RecordTemplate
from nestvec.engine.text.preparation.text_form import Stripped, TextForm, UnicodeForm


def _check_template(value: str | None) -> str | None:
    """Refuse what is no template.

    Raises:
        ValueError: It is none.
    """
    if value is not None:
        RecordTemplate(value)
    return value


class TextSettings(BaseModel):
    """What is made of texts and records before the tokenizer. Each part that is on makes a space of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unicode: Literal["nfc", "nfkc"] | None = Field(
        None, description="Unicode form that texts are brought into."
    )
    strip: Literal["control"] | None = Field(
        None, description="Take control characters and invisible format characters out."
    )
    template: Annotated[str | None, AfterValidator(_check_template)] = Field(
        None, description="How objects among the inputs become texts, such as {title}. {abstract}"
    )

    def form(self) -> TextForm:
        """Return them as the engine takes them."""
        return TextForm(
            unicode=None if self.unicode is None else UnicodeForm(self.unicode),
            strip=None if self.strip is None else Stripped(self.strip),
            template=None if self.template is None else RecordTemplate(self.template),
        )


TextTable = Annotated[TextSettings, NoDecode, BeforeValidator(parse_table)]
