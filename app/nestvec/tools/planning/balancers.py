"""Which server a balancer gives a request to: pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from nestvec.tools.planning.replica import Replica


class BalancerPolicy(StrEnum):
    """How a balancer chooses."""

    ROUND_ROBIN = "round-robin"
    RANDOM = "random"
    LEAST_REQUEST = "least-request"
    POWER_OF_TWO = "power-of-two"  # the one with fewer requests of two drawn at random, as Envoy's least_request does


@dataclass(slots=True)
class Balancer:
    """Chooses among servers.

    Attributes:
        policy: How.
        chooser: Draws servers, and settles ties.
    """

    policy: BalancerPolicy
    chooser: random.Random
    _turn: int = 0

    def choose(self, ready: Sequence[Replica]) -> Replica:
        """Return one of the servers that take requests, at least one."""
        match self.policy:
            case BalancerPolicy.ROUND_ROBIN:
                self._turn += 1
                return ready[self._turn % len(ready)]
            case BalancerPolicy.RANDOM:
                return self.chooser.choice(ready)
            case BalancerPolicy.POWER_OF_TWO:
                drawn = self.chooser.sample(ready, min(2, len(ready)))
                return min(drawn, key=lambda replica: len(replica.in_flight))
            case BalancerPolicy.LEAST_REQUEST:
                fewest = min(len(replica.in_flight) for replica in ready)
                idlest = [replica for replica in ready if len(replica.in_flight) == fewest]
                return self.chooser.choice(idlest)
