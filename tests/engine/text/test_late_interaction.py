"""Where queries of models that compare patches get what follows them, and how much room it leaves."""

import numpy as np
import pytest
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.late_interaction import LateInteraction, SuffixedQueries
from nestvec.engine.types import Truncation
from nestvec.errors import InputError

IDS = np.array([1, 5, 6, 2], np.int32)


@pytest.mark.parametrize(
    ("behind", "expected"), [(0, [1, 5, 6, 2, 9, 9, 9]), (1, [1, 5, 6, 9, 9, 9, 2])]
)
def test_the_suffix_stands_before_the_tokenizers_own_end(behind: int, expected: list[int]) -> None:
    """All of a query's vectors are given out; a document has no suffix."""
    late = SuffixedQueries(query_suffix=(9, 9, 9), tokens_behind=behind)
    query = late.mark(Encoded(IDS, is_truncated=False), is_query=True)
    assert query.ids.tolist() == expected
    assert query.token_mask is not None
    assert query.token_mask.all()
    document = late.mark(Encoded(IDS, is_truncated=False), is_query=False)
    assert document.ids.tolist() == IDS.tolist()


def test_a_limit_leaves_room_for_the_suffix() -> None:
    """A query's text has what is left of the call's limit or the model's; a limit that leaves nothing is refused."""
    late = SuffixedQueries(query_suffix=(9, 9, 9))
    asked = TokenizeOptions(Truncation.END, max_tokens=5)
    assert late.limit(asked, is_query=True, model_max_tokens=20).max_tokens == 2
    assert late.limit(asked, is_query=False, model_max_tokens=20).max_tokens == 5
    whole = TokenizeOptions(Truncation.END)
    assert late.limit(whole, is_query=True, model_max_tokens=20).max_tokens == 17
    with pytest.raises(InputError, match="at least 4"):
        late.limit(TokenizeOptions(Truncation.END, 3), is_query=True, model_max_tokens=20)


def test_names_and_fields_of_fingerprints_stay() -> None:
    """Spaces of stored vectors hold the repr of how queries are read."""
    assert repr(LateInteraction(skip_ids=(3,))) == (
        "LateInteraction(query_marker=None, document_marker=None, query_tokens=0, document_tokens=0, mask_id=0, "
        "attends_expansion=False, skip_ids=(3,), skips_first=False)"
    )
    assert repr(SuffixedQueries(query_suffix=(9,))).endswith(
        "skips_first=False, query_suffix=(9,), tokens_behind=0)"
    )
