"""The protocol of worker processes: a line of JSON in, a line of JSON out. Standard library only.

A worker loads its engine, says {"ready": versions}, then answers each request {"texts": […], "setting": {…}} with
{"seconds": s, "cpu_s": s, "rss_mb": peak, "check": [leading values of the first vector]}. With "each": true it embeds
the texts one by one and adds {"each_s": [s, …]}, with "vectors": true it adds them all, as lists of numbers.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

Encode = Callable[[Sequence[str], dict[str, Any]], Any]


def serve(versions: dict[str, str], encode: Encode) -> None:
    """Answer requests until the input ends."""
    answers = sys.stdout
    # Libraries print too.
    sys.stdout = sys.stderr
    print(json.dumps({"ready": versions}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        texts, setting = request["texts"], request["setting"]
        cpu_s, started = time.process_time(), time.perf_counter()
        each_s: list[float] = []
        if request.get("each"):
            vectors = []
            for text in texts:
                before = time.perf_counter()
                vectors.append(encode([text], setting)[0])
                each_s.append(time.perf_counter() - before)
        else:
            vectors = encode(texts, setting)
        answer = {
            "seconds": time.perf_counter() - started,
            "cpu_s": time.process_time() - cpu_s,
            "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "check": [float(value) for value in vectors[0][:8]],
            "each_s": each_s,
        }
        if request.get("vectors"):
            answer["vectors"] = [[float(value) for value in vector] for vector in vectors]
        print(json.dumps(answer), file=answers, flush=True)
