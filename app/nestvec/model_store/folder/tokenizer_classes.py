"""What transformers' tokenizer classes do to a tokenizer.json: their defaults, and the parts that they replace.

Where transformers 4.57 and 5 differ, 4.57 is followed, with which most authors measured, unless the folder's
config.json names version 5 or newer (`transformers_version`):

| what                             | 4.57                                  | 5                                        |
|----------------------------------|---------------------------------------|------------------------------------------|
| BERT's `do_lower_case` and alike | change a BertNormalizer, leave others | make a BertNormalizer, whatever there was|
| `add_bos_token`, `add_eos_token` | make the template of Llama, Gemma,    | say nothing beside a tokenizer.json      |
|                                  | Cohere and GPT-NeoX, by default too   |                                          |
| `add_prefix_space` (ByteLevel)   | counts, or its default, in any class  | only in RoBERTa's and GPT-2's            |
| Llama's blanks                   | as `legacy` and `add_prefix_space`    | by Metaspace, whatever `legacy` says     |
|                                  | say, where the latter is given        |                                          |
| case of SigLIP 2 NaFlex's texts  | left, though its authors' folders say | small letters, by a class of its own     |
|                                  | `do_lower_case`, which is honoured    |                                          |
| own code `Qwen2TokenizerFast`    | makes its template as Llama does      | the same (it does not run there)         |
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

SPECIAL_TOKENS: Final = (
    *("bos_token", "eos_token", "unk_token", "sep_token"),
    *("pad_token", "cls_token", "mask_token"),
)


@dataclass(frozen=True, slots=True)
class TokenizerClass:
    """One class of transformers' fast tokenizers.

    Attributes:
        tokens: Its default special tokens, by the name of their setting.
        sets_case: Whether `do_lower_case` and `strip_accents` change the normalizer.
        checks_chinese: Whether `tokenize_chinese_chars` alone changes it too.
        default_bos_eos: Defaults of `add_bos_token` and `add_eos_token` where the class makes its template of them;
            None where it leaves the file's.
        is_own_code: Whether it is the authors' own code, which no version of transformers decides about.
        is_converted: Whether `add_prefix_space` makes it convert tokenizer.model anew.
        is_byte_level: Whether version 5 makes its pre-tokenizer ByteLevel by `add_prefix_space`.
        lowers: Whether letters become small before anything else, whatever the files say.
        mask_is_normalized: In 4.57 the class's own mask token takes the blanks before it; whether it is found in
            normalized text. None where a mask is as any other special token.
    """

    tokens: Mapping[str, str] = field(default_factory=dict)
    sets_case: bool = False
    checks_chinese: bool = True
    default_bos_eos: tuple[bool, bool] | None = None
    is_own_code: bool = False
    is_converted: bool = False
    is_byte_level: bool = False
    lowers: bool = False
    mask_is_normalized: bool | None = None


def _tokens(unk: str, **others: str) -> Mapping[str, str]:
    tokens = {"unk": unk, **others}
    return MappingProxyType({f"{name}_token": token for name, token in tokens.items()})


_BRACKETS: Final = _tokens("[UNK]", sep="[SEP]", pad="[PAD]", cls="[CLS]", mask="[MASK]")
_ANGLES: Final = {
    "bos": "<s>",
    "eos": "</s>",
    "sep": "</s>",
    "cls": "<s>",
    "pad": "<pad>",
    "mask": "<mask>",
}
_END: Final = "<|endoftext|>"

PLAIN: Final = TokenizerClass()
BERT: Final = TokenizerClass(tokens=_BRACKETS, sets_case=True)
ROBERTA: Final = TokenizerClass(
    tokens=_tokens("<unk>", **_ANGLES), is_byte_level=True, mask_is_normalized=False
)
XLM_ROBERTA: Final = TokenizerClass(tokens=ROBERTA.tokens, mask_is_normalized=True)
LLAMA: Final = TokenizerClass(
    tokens=_tokens("<unk>", bos="<s>", eos="</s>"),
    default_bos_eos=(True, False),
    is_converted=True,
)
QWEN2: Final = TokenizerClass(tokens=_tokens(_END, eos=_END, pad=_END))
GPT2: Final = TokenizerClass(tokens=_tokens(_END, bos=_END, eos=_END), is_byte_level=True)
# gte-Qwen2's and Stella's own code: the template of Llama's class on Qwen2's.
OWN_QWEN2: Final = TokenizerClass(
    tokens=QWEN2.tokens, default_bos_eos=(False, False), is_own_code=True
)

GEMMA: Final = TokenizerClass(
    tokens=_tokens("<unk>", bos="<bos>", eos="<eos>", pad="<pad>"),
    default_bos_eos=(True, False),
)
# Gemma's with small letters, as the texts of SigLIP 2 were in training (arXiv:2502.14786).
SIGLIP2: Final = TokenizerClass(
    tokens=MappingProxyType({**GEMMA.tokens, "mask_token": "<mask>"}),
    default_bos_eos=GEMMA.default_bos_eos,
    lowers=True,
)

# By the class's name without "Fast".
CLASSES: Final[Mapping[str, TokenizerClass]] = {
    **dict.fromkeys(
        (
            *("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "ConvBertTokenizer"),
            *(
                "MobileBertTokenizer",
                "LayoutLMTokenizer",
                "SqueezeBertTokenizer",
                "LxmertTokenizer",
            ),
            *("DPRQuestionEncoderTokenizer", "DPRContextEncoderTokenizer", "RetriBertTokenizer"),
        ),
        BERT,
    ),
    "MPNetTokenizer": TokenizerClass(
        tokens=_tokens("[UNK]", **_ANGLES),
        sets_case=True,
        checks_chinese=False,
        mask_is_normalized=True,
    ),
    "RobertaTokenizer": ROBERTA,
    "LongformerTokenizer": ROBERTA,
    "XLMRobertaTokenizer": XLM_ROBERTA,
    "CamembertTokenizer": TokenizerClass(tokens=ROBERTA.tokens, mask_is_normalized=False),
    "DebertaV2Tokenizer": TokenizerClass(
        tokens=MappingProxyType({**_BRACKETS, "bos_token": "[CLS]", "eos_token": "[SEP]"}),
    ),
    "T5Tokenizer": TokenizerClass(
        tokens=_tokens("<unk>", eos="</s>", pad="<pad>"),
        is_converted=True,
    ),
    "LlamaTokenizer": LLAMA,
    "GemmaTokenizer": GEMMA,
    "Siglip2Tokenizer": SIGLIP2,
    "CohereTokenizer": TokenizerClass(
        tokens=_tokens("<UNK>", bos="<BOS_TOKEN>", eos="<|END_OF_TURN_TOKEN|>"),
        default_bos_eos=(True, False),
    ),
    "GPTNeoXTokenizer": TokenizerClass(tokens=GPT2.tokens, default_bos_eos=(False, False)),
    "Qwen2Tokenizer": QWEN2,
    "CLIPTokenizer": TokenizerClass(
        tokens=_tokens(_END, bos="<|startoftext|>", eos=_END, pad=_END),
    ),
    "GPT2Tokenizer": GPT2,
}

# Classes for which tokenizer.json is not what transformers reads, or that do more than is known here.
UNSUPPORTED: Final = frozenset(
    {
        *("BertJapaneseTokenizer", "ByT5Tokenizer", "CanineTokenizer", "EsmTokenizer"),
        *("MBartTokenizer", "MBart50Tokenizer", "NllbTokenizer", "SeamlessM4TTokenizer"),
        *("WhisperTokenizer", "CodeLlamaTokenizer", "RoFormerTokenizer", "M2M100Tokenizer"),
        *("PerceiverTokenizer", "PhobertTokenizer", "BertweetTokenizer"),
    }
)

# Families whose tokenizer.json stands for itself in version 5, whatever class is named beside it.
PLAIN_IN_NEW: Final = frozenset({"mistral", "modernbert"})

# A repository's own tokenizer code that is known, by the name in `auto_map`.
REMOTE: Final[Mapping[str, TokenizerClass]] = {
    "tokenization_qwen.Qwen2TokenizerFast": OWN_QWEN2,
}

# The class where neither tokenizer_config.json nor config.json names one, by config.json's model_type.
BY_MODEL_TYPE: Final[Mapping[str, str]] = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "t5": "T5Tokenizer",
    "llama": "LlamaTokenizer",
    "mistral": "LlamaTokenizer",
    "gemma3_text": "GemmaTokenizer",
    "siglip2": "GemmaTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "qwen3_vl": "Qwen2Tokenizer",
}
