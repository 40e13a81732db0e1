"""Container health check: is the server ready? Standard library only, so that it starts fast."""

import os
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 4

port = os.environ.get("NESTVEC_PORT", "8080")
try:
    with urllib.request.urlopen(
        f"http://127.0.0.1:{port}/health/ready", timeout=TIMEOUT_S
    ) as answer:
        sys.exit(0 if answer.status == 200 else 1)  # noqa: PLR2004 - HTTP's own
except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
    print(f"not ready: {error}")
    sys.exit(1)
