"""Container health check: is the server ready? Standard library only, and little of it, so that it starts fast."""

import http.client
import os
import sys

TIMEOUT_S = 4
DEFAULT_PORT = "8080"


def main() -> int:
    """Ask the server of this container whether it is ready, past any proxy; returns the exit status."""
    port = os.environ.get("NESTVEC_PORT", "")
    if not port.isdigit():  # Kubernetes sets NESTVEC_PORT=tcp://… for a Service of our name
        port = DEFAULT_PORT
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health/ready")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"not ready: {error}")
        return 1
    finally:
        connection.close()
    if status != http.client.OK:
        print(f"not ready: {status}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
