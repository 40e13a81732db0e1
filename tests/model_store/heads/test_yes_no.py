"""Re-rankers that read pairs in a template: yes/no by a causal model, and classifiers, against transformers."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.assembly.sources import CHECKOUT_CARDS
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.pair_template import PairTemplate, TemplatedPairEncoder
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.tokenization import resolve_prompt
from nestvec.engine.types import EmbedCall, OutputKind, Pair, Truncation
from nestvec.errors import FormatError, InputError, InputTooLongError
from nestvec.model_store.artefacts.fingerprint import HashCache, space_fingerprint
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.heads.chat_templates import read_pair_template
from nestvec.model_store.sources.card import read_card
from safetensors.numpy import load_file, save_file

from tests.export.families.weights import random_weights
from tests.model_store.heads.serving import HERE, Opened, opened
from tests.model_store.heads.yes_no import (
    CASES,
    CHAT_TEMPLATES,
    DOCUMENTS,
    INSTRUCTION,
    NO_ID,
    QUERIES,
    SELECT,
    TEMPLATE,
    TRICKY,
    YES_ID,
    config_of,
)
from tests.support.served import SPEC
from tests.support.tiny import vocabulary, write_json, write_tokenizer

STORED = json.loads((HERE / "expected_yes_no.json").read_text())
TOLERANCE = 1e-4
BASE = "sentence_transformers.base.modules.transformer.Transformer"
LOGIT_SCORE = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
MESSAGES = {
    "transformer_task": "text-generation",
    "modality_config": {
        "text": {"method": "forward", "method_output_name": "logits"},
        "message": {"method": "forward", "method_output_name": "logits", "format": "flat"},
    },
    "module_output_name": "causal_logits",
}
FRAME = "query : {query} passage : {document}[SEP] one"


def write_case(folder: Path, name: str, *, template: str | None = TEMPLATE) -> Path:
    """Write a folder as Qwen3-Reranker is published."""
    family, is_tied = CASES[name]
    write_json(folder / "config.json", config_of(family, is_tied=is_tied))
    write_tokenizer(folder / "tokenizer.json")
    tensors = random_weights(STORED["cases"][name]["tensors"], STORED["seed"])
    save_file(tensors, folder / "model.safetensors")
    write_json(folder / "sentence_bert_config.json", MESSAGES)
    modules = [{"path": "", "type": BASE}, {"path": "1_LogitScore", "type": LOGIT_SCORE}]
    write_json(folder / "modules.json", modules)
    ids = {"true_token_id": YES_ID, "false_token_id": NO_ID}
    write_json(folder / "1_LogitScore/config.json", ids)
    if template is not None:
        write_json(folder / "tokenizer_config.json", {"chat_template": template})
    return folder


async def scores_of(server: Opened, query: str, documents: list[str], **more: Any) -> list[float]:
    """Rerank; return the scores in the order of the documents."""
    body = {"query": query, "documents": documents, "return_documents": False, **more}
    answer = await server.post("/v1/rerank", body)
    by_index = {row["index"]: row["relevance_score"] for row in answer["results"]}
    return [by_index[index] for index in range(len(documents))]


async def all_scores(server: Opened) -> list[float]:
    """Rerank with the template's own instruction and with a request's."""
    got = []
    for instruction in ({}, {"instruction": INSTRUCTION}):
        for query in QUERIES:
            got += await scores_of(server, query, DOCUMENTS, **instruction)
    return got


async def test_scores_are_the_softmax_over_two_logits(tmp_path: Path) -> None:
    """Of the published folder alone; here the head is the embeddings' matrix."""
    write_case(tmp_path / "model", "qwen3, tied")
    async with opened(tmp_path / "model") as server:
        got = await all_scores(server)
    np.testing.assert_allclose(got, STORED["cases"]["qwen3, tied"]["scores"], atol=TOLERANCE)


async def test_every_route_and_any_batch_gives_the_same(tmp_path: Path) -> None:
    """All dialects give the same scores, a document's neighbours change neither score nor order; errors are clear."""
    write_case(tmp_path / "model", "qwen3")
    query, documents = QUERIES[0], [*DOCUMENTS, "red " * 30, "blue", "green " * 20]
    extra = {"instruction": INSTRUCTION}
    async with opened(tmp_path / "model") as server:
        alone = [(await scores_of(server, query, [each], **extra))[0] for each in documents]
        together = await scores_of(server, query, documents, **extra)
        body = {"query": query, "documents": documents, **extra}
        cohere = await server.post("/v2/rerank", body)
        voyage = await server.post("/v1/rerank", {**body, "top_k": len(documents)})
        tei = await server.post("/rerank", {"query": query, "texts": documents, **extra})
        vllm = await server.post("/score", {"text_1": query, "text_2": documents, **extra})
        single = await server.post("/predict", {"inputs": [[query, documents[0]]]})
        plain = await scores_of(server, query, documents[:1])
        scores = await all_scores(server)
        long = "one " * 80
        body = {"query": long, "documents": ["red"]}
        no_room = await server.client.post("/v1/rerank", json=body)
        no_room_score = await server.client.post("/score", json={"text_1": long, "text_2": ["red"]})
    np.testing.assert_allclose(scores, STORED["cases"]["qwen3"]["scores"], atol=TOLERANCE)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    order = np.argsort(-np.array(alone), kind="stable").tolist()
    for rows, key in (
        (cohere["results"], "relevance_score"),
        (voyage["data"], "relevance_score"),
        (tei, "score"),
    ):
        assert [row["index"] for row in rows] == order
        np.testing.assert_allclose([row[key] for row in rows], np.array(alone)[order], atol=1e-6)
    np.testing.assert_allclose([row["score"] for row in vllm["data"]], alone, atol=1e-6)
    np.testing.assert_allclose(single[0][0]["score"], plain[0], atol=1e-6)
    assert (no_room.status_code, no_room_score.status_code) == (400, 400)
    assert "no document fits in" in no_room.text
    assert no_room_score.json()["error"]["param"] == "text_1"


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_templates_are_equal_to_the_character(name: str) -> None:
    """What stands around a document is what Jinja writes, as transformers opens it."""
    template = read_pair_template(CHAT_TEMPLATES[name], "folder")
    expected = iter(STORED["rendered"][name])
    for instruction in (None, "{query} of\n{document}"):
        for query, document in TRICKY:
            before, after = template.around(query, instruction)
            assert before + document + after == next(expected)


def test_the_cards_template_is_the_published_one() -> None:
    """Of Qwen3-Reranker's cards, whatever the revision's own files have."""
    card = read_card(CHECKOUT_CARDS / "Qwen3-Reranker-0.6B.toml")
    template = PairTemplate.from_table(card.overrides["pair"])
    for (query, document), rendered in zip(
        TRICKY, STORED["rendered"]["Qwen3-Reranker"], strict=False
    ):
        before, after = template.around(query, None)
        assert before + document + after == rendered


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}{{ message.content }}{% endfor %}",
        f"{{{{ {SELECT.format('query')} }}}}",
        f"{{{{ {SELECT.format('query')} }}}}{{{{ {SELECT.format('document')} | upper }}}}",
        f"{{{{ {SELECT.format('query')} }}}}{{{{ {SELECT.format('document')} }}}}{{{{ bos_token }}}}",
        f"{{{{ {SELECT.format('query')} }}}}{{{{ {SELECT.format('assistant')} }}}}",
        f"{{{{ {SELECT.format('query')} | default('x') }}}}{{{{ {SELECT.format('document')} }}}}",
        "{{ cycler.__init__.__globals__ }}",
        "",
        "x" * 200_000,
    ],
)
def test_other_templates_are_refused_with_the_way_out(template: str) -> None:
    """A program in Jinja is neither run nor guessed at."""
    with pytest.raises(FormatError, match=r"overrides\.pair\.template"):
        read_pair_template(template, "folder")


def encoder(folder: Path, max_tokens: int, **options: Any) -> TemplatedPairEncoder:
    """Make an encoder of pairs over the tiny tokenizer."""
    write_tokenizer(folder / "tokenizer.json")
    tokenizer = Tokenizer(folder / "tokenizer.json", max_tokens=max_tokens, vocabulary_size=128)
    chosen = {"truncate": Truncation.END, **options}
    return TemplatedPairEncoder(
        tokenizer, PairTemplate.parse(FRAME), None, TokenizeOptions(**chosen)
    )


def words(ids: Any) -> str:
    """The tokens of ids."""
    pieces = vocabulary()
    return " ".join(pieces[token] for token in ids)


def test_the_document_is_cut_and_the_template_stays(tmp_path: Path) -> None:
    """Whatever a document's length, the query and what stands behind the document are there, and losses are told."""
    pairs = [Pair("alpha beta", text) for text in ("red", "red blue " * 4000, "")]
    short, long, empty = encoder(tmp_path, 14).encode(pairs, 0)
    assert words(short.ids) == "query : alpha beta passage : red [SEP] one"
    assert words(long.ids) == "query : alpha beta passage : red blue red blue red blue [SEP] one"
    assert words(empty.ids) == "query : alpha beta passage : [SEP] one"
    assert (short.is_truncated, long.is_truncated, empty.is_truncated) == (False, True, False)
    exact = encoder(tmp_path, 14).encode([Pair("alpha beta", "red blue " * 4)], 0)[0]
    assert (len(exact.ids), exact.dropped_tokens) == (14, 2)
    start = encoder(tmp_path, 14, truncate=Truncation.START)
    (last,) = start.encode([Pair("alpha beta", "red blue " * 4000 + "green")], 0)
    assert words(last.ids) == "query : alpha beta passage : blue red blue red blue green [SEP] one"


def test_limits_of_the_caller(tmp_path: Path) -> None:
    """A document's own limit cuts it without a word; without truncation the first pair that is too long is named."""
    (limited,) = encoder(tmp_path, 40, max_second_tokens=2).encode([Pair("one", "red " * 9)], 0)
    assert words(limited.ids) == "query : one passage : red red [SEP] one"
    assert not limited.is_truncated
    strict = encoder(tmp_path, 14, truncate=Truncation.ERROR)
    with pytest.raises(InputTooLongError) as caught:
        strict.encode([Pair("one", "red"), Pair("one", "red " * 50)], 3)
    assert caught.value.input_index == 4
    with pytest.raises(InputError, match="no document fits in") as refused:
        encoder(tmp_path, 14).encode([Pair("one " * 20, "red")], 0)
    assert (refused.value.param, refused.value.input_index) == ("query", None)


def test_a_card_says_template_tokens_and_activation(tmp_path: Path) -> None:
    """A folder with nothing but a causal model is a re-ranker by its card, and its template names the space."""
    folder = write_case(tmp_path / "model", "qwen3, tied", template=None)
    for name in ("modules.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    card = tmp_path / "card.toml"
    card.write_text(
        f'name = "r"\n[source]\nkind = "folder"\nname = "{folder}"\n'
        '[overrides]\nactivation = "identity"\n'
        f'[overrides.logit_score]\ntrue_token = "{vocabulary()[YES_ID]}"\nfalse_token = {NO_ID}\n'
        f'[overrides.pair]\ntemplate = "{FRAME}"\ninstructed = "{{instruction}} {FRAME}"\n'
    )
    overrides = read_card(card).overrides
    model = read_model_folder(folder, overrides)
    assert model.head.summary() == {"logit_score": [YES_ID, NO_ID]}
    assert model.head.activation == "identity"
    assert model.pair is not None
    assert model.pair.around("a", "do")[0] == "do query : a passage : "
    other = {**overrides, "pair": {"template": "{query}{document}"}}
    hashes = HashCache(tmp_path / "hashes")
    spaces = {space_fingerprint(read_model_folder(folder, o), hashes) for o in (overrides, other)}
    assert len(spaces) == 2


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ('pair = {template = "{query}"}', "pair needs {query}, and {document} once"),
        ('pair = {template = "{query}{document}", other = ""}', "pair takes a template"),
        (
            'pair = {template = "{query}{document}", instructed = "{query}{document}"}',
            "instruction",
        ),
        ('logit_score = {false_token = "no"}', "logit_score takes a true_token"),
        ('activation = "tanh"', "activation must be one of"),
    ],
)
def test_cards_that_make_no_sense_are_refused(tmp_path: Path, table: str, named: str) -> None:
    """The error names the key."""
    path = tmp_path / "card.toml"
    path.write_text(f'name = "r"\n[source]\nkind = "folder"\nname = "x"\n[overrides]\n{table}\n')
    with pytest.raises(FormatError, match=named):
        read_card(path)


def refused(folder: Path) -> str:
    """Return why a folder is refused."""
    with pytest.raises(FormatError) as caught:
        read_model_folder(folder)
    return caught.value.message


def test_what_a_folder_leaves_out_is_named(tmp_path: Path) -> None:
    """No template, other modules, tokens that are none, capped logits and other families."""
    folder = write_case(tmp_path / "a", "qwen3", template=None)
    assert "overrides.pair.template" in refused(folder)
    general = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert "overrides.pair.template" in refused(
        write_case(tmp_path / "b", "qwen3", template=general)
    )
    folder = write_case(tmp_path / "c", "qwen3")
    path = folder / "1_LogitScore/config.json"
    for wrong in (
        {"true_token_id": 128},
        {"true_token_id": True},
        {},
        {"true_token_id": 5, "false_token_id": 5},
    ):
        write_json(path, wrong)
        assert "token" in refused(folder)
    write_json(path, {"true_token_id": YES_ID, "module_input_name": "scores"})
    assert "module_input_name" in refused(folder)
    write_json(path, {"true_token_id": YES_ID})
    config = config_of("qwen3", is_tied=False)
    write_json(folder / "config.json", {**config, "final_logit_softcapping": 30.0})
    assert "final_logit_softcapping" in refused(folder)


async def test_a_classifier_reads_its_folders_template(tmp_path: Path) -> None:
    """A conversion to a classifier gives the same scores: its one row is the difference of the two."""
    folder = write_case(tmp_path / "model", "qwen3")
    tensors = load_file(folder / "model.safetensors")
    head = tensors.pop("lm_head.weight")
    tensors["score.weight"] = head[[YES_ID]] - head[[NO_ID]]
    save_file(tensors, folder / "model.safetensors")
    config = config_of("qwen3", is_tied=False)
    classes = {"architectures": ["Qwen3ForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    write_json(folder / "config.json", {**config, **classes})
    write_json(folder / "modules.json", [{"path": "", "type": BASE}])
    settings = {**MESSAGES, "transformer_task": "sequence-classification"}
    write_json(folder / "sentence_bert_config.json", {**settings, "module_output_name": "scores"})
    async with opened(folder) as server:
        got = await scores_of(server, QUERIES[0], DOCUMENTS)
    expected = STORED["cases"]["qwen3"]["scores"][: len(DOCUMENTS)]
    np.testing.assert_allclose(got, expected, atol=TOLERANCE)


def test_an_instruction_needs_a_place() -> None:
    """A template without one refuses it by name, and so does a re-ranker that reads two texts."""
    call = EmbedCall([Pair("one", "red")], kind=OutputKind.LABELS, instruction="alpha")
    for pair in (None, PairTemplate.parse(FRAME)):
        with pytest.raises(InputError, match="put it into 'query'") as caught:
            resolve_prompt(call, dataclasses.replace(SPEC, pair=pair))
        assert caught.value.param == "instruction"
