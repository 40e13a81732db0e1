"""Re-ranks a lexical search of SciFact by a running server's `/v1/rerank`, and says what that gives and takes.

    nestvec serve --model Qwen/Qwen3-Reranker-0.6B &
    python -m benchmarks.rerank_run --url http://127.0.0.1:8080

For each query BM25 finds 100 documents among all 5,183, and the server orders them. nDCG@10 before and behind is told,
with the method that the server scored by: a model that is no re-ranker scores by cosine, and one with random weights
orders at random.
"""

import argparse
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from nestvec.corpus.reports.statistics.scores import ndcg
from nestvec.tools.quality.tasks import read_retrieval

DEPTH: Final = 10
# As Lucene has them.
SATURATION: Final = 1.2
LENGTH_WEIGHT: Final = 0.75
WORD: Final = re.compile(r"\w+")
TIMEOUT_S: Final = 600


class LexicalIndex:
    """BM25 (Robertson and Zaragoza, 2009) over words in small letters.

    Args:
        documents: The documents.
    """

    def __init__(self, documents: Sequence[str]) -> None:
        counts = [Counter(words(text)) for text in documents]
        lengths = [sum(count.values()) for count in counts]
        mean = sum(lengths) / len(lengths)
        self._size = len(documents)
        self._weights: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for number, (count, length) in enumerate(zip(counts, lengths, strict=True)):
            norm = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * length / mean)
            for word, times in count.items():
                self._weights[word].append((number, times * (SATURATION + 1) / (times + norm)))

    def search(self, query: str, depth: int) -> list[int]:
        """Return the numbers of the best documents, the best first."""
        scores = np.zeros(self._size)
        for word in words(query):
            postings = self._weights.get(word, [])
            rarity = math.log(1 + (self._size - len(postings) + 0.5) / (len(postings) + 0.5))
            for number, weight in postings:
                scores[number] += rarity * weight
        best: list[int] = np.argsort(-scores, kind="stable")[:depth].tolist()
        return best


def words(text: str) -> list[str]:
    """The words of a text, in small letters."""
    return WORD.findall(text.lower())


def reranked(
    client: httpx.Client, query: str, documents: Sequence[str], options: dict[str, Any]
) -> tuple[list[int], str, int]:
    """Have a server order documents; returns their order, the method and the tokens that it took."""
    body = {"query": query, "documents": list(documents), "return_documents": False, **options}
    answer = client.post("/v1/rerank", json=body)
    answer.raise_for_status()
    content = answer.json()
    order = [row["index"] for row in content["results"]]
    return order, answer.headers["x-embed-score"], content["usage"]["total_tokens"]


def main() -> None:
    """Measure, and print a line for each stage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--data", type=Path, default=Path("data/scifact"))
    parser.add_argument("--queries", type=int, default=0, help="only so many of the 300")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--model", help="where the server has several")
    parser.add_argument("--instruction", help="for models whose template has a place for one")
    arguments = parser.parse_args()
    task = read_retrieval(arguments.data)
    index = LexicalIndex(task.documents)
    named = {"model": arguments.model, "instruction": arguments.instruction}
    options = {name: value for name, value in named.items() if value}
    before, behind, tokens, method = [], [], 0, ""
    started = time.monotonic()
    count = arguments.queries or len(task.queries)
    with httpx.Client(base_url=arguments.url, timeout=TIMEOUT_S) as client:
        for query_id, query in list(zip(task.query_ids, task.queries, strict=True))[:count]:
            found = index.search(query, arguments.candidates)
            texts = [task.documents[number] for number in found]
            order, method, taken = reranked(client, query, texts, options)
            tokens += taken
            relevant = task.relevant[query_id]
            ids = [task.document_ids[number] for number in found]
            before.append(ndcg(ids, relevant, k=DEPTH))
            behind.append(ndcg([ids[place] for place in order], relevant, k=DEPTH))
    seconds = time.monotonic() - started
    pairs = len(before) * arguments.candidates
    print(f"nDCG@{DEPTH} of BM25: {np.mean(before):.4f}")
    print(f"nDCG@{DEPTH} of its first {arguments.candidates}, by {method}: {np.mean(behind):.4f}")
    print(f"{len(before)} queries, {pairs / seconds:.0f} pairs/s, {tokens / seconds:.0f} tokens/s")


if __name__ == "__main__":
    main()
