"""The autoscaler's decisions, which are those of Kubernetes' HPA."""

from nestvec.tools.planning.autoscaler import Autoscaler


def test_it_follows_the_ratio_of_signal_and_target() -> None:
    """Twice the target a server asks for twice the servers, at once; the tolerance for none; the bounds hold."""
    scaler = Autoscaler(1, 10, target_queue_s=0.5)
    assert scaler.wanted(0.0, replicas=3, ready=3, queue_s=3.0) == 6
    assert Autoscaler(1, 10, 0.5).wanted(0.0, replicas=3, ready=3, queue_s=1.6) == 3
    assert Autoscaler(1, 10, 0.5).wanted(0.0, replicas=3, ready=3, queue_s=100.0) == 10
    assert Autoscaler(2, 10, 0.5).wanted(400.0, replicas=2, ready=2, queue_s=0.0) == 2


def test_servers_go_only_after_a_calm_window() -> None:
    """The most that was wanted within the window stays."""
    scaler = Autoscaler(1, 10, target_queue_s=0.5, calm_s=60.0)
    assert scaler.wanted(0.0, replicas=2, ready=2, queue_s=4.0) == 8
    assert scaler.wanted(30.0, replicas=8, ready=8, queue_s=0.4) == 8
    assert scaler.wanted(59.0, replicas=8, ready=8, queue_s=0.4) == 8
    assert scaler.wanted(91.0, replicas=8, ready=8, queue_s=0.4) == 1
