"""One session for steps that run the same graph, and never two at once."""

from pathlib import Path

import pytest
from nestvec.engine.backend import Backend, BackendOptions
from nestvec.engine.types import Layout
from nestvec.errors import FormatError
from nestvec.model_store.artefacts.backend_cache import cached_backends

from tests.support.fakes import FakeBackend

OPTIONS = BackendOptions(provider="cpu")


class Opener:
    """Opens fakes, and checks that no other is open."""

    def __init__(self) -> None:
        self.opened: list[FakeBackend] = []

    def __call__(self, path: Path, layout: Layout, options: BackendOptions) -> Backend:
        """Open a fake; a graph that says so is broken."""
        assert all(backend.is_closed for backend in self.opened)
        if path.read_text() == "broken":
            raise FormatError("broken")
        self.opened.append(FakeBackend())
        return self.opened[-1]


@pytest.fixture
def opener() -> Opener:
    """Make an opener."""
    return Opener()


def test_the_same_graph_is_opened_once(tmp_path: Path, opener: Opener) -> None:
    """Under its old path and, when the folder has its final name, under that; it is closed at the end."""
    folder = tmp_path / "making"
    folder.mkdir()
    (folder / "model.onnx").write_text("graph")
    with cached_backends(opener) as backends:
        first = backends.open(folder / "model.onnx", Layout.PACKED, OPTIONS)
        folder.rename(tmp_path / "made")
        again = backends.open(tmp_path / "made/model.onnx", Layout.PACKED, OPTIONS)
        assert again is first
        assert not opener.opened[0].is_closed
    assert [backend.is_closed for backend in opener.opened] == [True]


def test_another_graph_or_other_options_close_what_is_open(tmp_path: Path, opener: Opener) -> None:
    """The opener sees to it that the one before is closed first; a file that was replaced is another graph."""
    path, other = tmp_path / "model.onnx", tmp_path / "other.onnx"
    path.write_text("graph")
    other.write_text("graph")
    with cached_backends(opener) as backends:
        backends.open(path, Layout.PACKED, OPTIONS)
        backends.open(path, Layout.PACKED, BackendOptions(provider="cpu", intra_op_threads=2))
        backends.open(other, Layout.PACKED, OPTIONS)
        path.rename(other)
        backends.open(other, Layout.PACKED, OPTIONS)
        backends.close()
        backends.open(other, Layout.PACKED, OPTIONS)
    assert len(opener.opened) == 5


def test_a_graph_that_cannot_be_opened_leaves_nothing_open(tmp_path: Path, opener: Opener) -> None:
    """The next one is opened as if nothing had been."""
    path = tmp_path / "model.onnx"
    with cached_backends(opener) as backends:
        path.write_text("graph")
        backends.open(path, Layout.PACKED, OPTIONS)
        broken = tmp_path / "broken.onnx"
        broken.write_text("broken")
        with pytest.raises(FormatError):
            backends.open(broken, Layout.PACKED, OPTIONS)
        backends.open(path, Layout.PACKED, OPTIONS)
    assert [backend.is_closed for backend in opener.opened] == [True, True]


def test_what_is_open_is_closed_when_a_build_fails(tmp_path: Path, opener: Opener) -> None:
    """A failing export leaves no session behind."""
    path = tmp_path / "model.onnx"
    path.write_text("graph")

    def fail() -> None:
        with cached_backends(opener) as backends:
            backends.open(path, Layout.PACKED, OPTIONS)
            raise FormatError("failed")

    with pytest.raises(FormatError):
        fail()
    assert opener.opened[0].is_closed
