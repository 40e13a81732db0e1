"""What a worker process speaks: a line of JSON in, a line of JSON out. Standard library only.

A worker loads its engine, says {"ready": versions}, then times each request {"texts": [...], "setting": {...}} with
{"seconds": s, "check": [leading values of the first vector]}.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

Encode = Callable[[Sequence[str], dict[str, Any]], Any]


def serve(versions: dict[str, str], encode: Encode) -> None:
    """Answer until the input ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # libraries print too
    print(json.dumps({"ready": versions}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        started = time.perf_counter()
        vectors = encode(asked["texts"], asked["setting"])
        seconds = time.perf_counter() - started
        check = [float(value) for value in vectors[0][:4]]
        print(json.dumps({"seconds": seconds, "check": check}), file=answers, flush=True)
