"""Base images for docker/check on machines without a registry: Debian by debootstrap, a CPython, a Prometheus.

They stand in for the images that the Dockerfile and docker-compose.yml name, and are passed to both by PYTHON_IMAGE and
PROMETHEUS_IMAGE. Nothing is fetched but Debian packages, from the mirror that apt uses here.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from engine import CommandError, Engine, call

PYTHON_TAG: Final = "localhost/stand-in-python:3.12"
PROMETHEUS_TAG: Final = "localhost/stand-in-prometheus:debian"
SUITE: Final = "bookworm"
DEBOOTSTRAP_TIMEOUT_S: Final = 1500
# What CPython's own modules are linked against.
PACKAGES: Final = (
    *("ca-certificates", "netbase", "tzdata", "libssl3", "libffi8", "libsqlite3-0", "zlib1g"),
    *("libbz2-1.0", "liblzma5", "libreadline8", "libncursesw6", "libuuid1", "libexpat1"),
)
# Documentation and the like, which Debian's slim images lack too.
NOT_IN_SLIM: Final = (
    *("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man"),
    *("usr/share/locale", "usr/share/info", "usr/share/lintian"),
)
# Of CPython's library: what an image of Python lacks too.
NOT_IN_PYTHON: Final = (
    *("test", "idlelib", "tkinter", "turtledemo", "lib2to3", "__pycache__", "site-packages"),
    *("config-*", "*.a", "tests"),
)
HOST_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
PATH: Final = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


def find_python() -> Path | None:
    """Return the prefix of a CPython 3.12 of this machine; None where there is none."""
    candidates = [
        Path("/usr/local"),
        Path("/usr"),
        *sorted((Path.home() / ".pyenv/versions").glob("3.12.*")),
    ]
    return next(
        (
            p
            for p in candidates
            if (p / "bin/python3.12").is_file() and (p / "lib/python3.12/os.py").is_file()
        ),
        None,
    )


def make_root(root: Path, packages: tuple[str, ...]) -> None:
    """Make a root file system of Debian's."""
    mirrors = call(
        "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"
    ).split()
    if not mirrors:
        raise CommandError("apt names no mirror: run apt-get update first")
    call(
        *(
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(packages)}",
            SUITE,
            root,
            mirrors[0],
        ),
        timeout_s=DEBOOTSTRAP_TIMEOUT_S,
    )
    for name in NOT_IN_SLIM:
        for path in (root / name).glob("*"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def add_python(root: Path, prefix: Path) -> None:
    """Copy a CPython of this machine into a root file system, as an image of Python has it."""
    usr = root / "usr/local"
    shutil.copytree(
        prefix / "lib/python3.12",
        usr / "lib/python3.12",
        ignore=shutil.ignore_patterns(*NOT_IN_PYTHON),
        symlinks=True,
    )
    (usr / "lib/python3.12/site-packages").mkdir()
    shutil.copy2(prefix / "bin/python3.12", usr / "bin")
    for library in prefix.glob("lib/libpython3.12.so*"):
        shutil.copy2(library, usr / "lib", follow_symlinks=False)
    for name in ("python", "python3"):
        (usr / "bin" / name).symlink_to("python3.12")
    binaries = [*usr.glob("lib/libpython3.12.so.*"), *usr.glob("lib/python3.12/lib-dynload/*.so")]
    if shutil.which("strip"):
        call("strip", "--strip-debug", *binaries)
    call("chroot", root, "/sbin/ldconfig")
    call("chroot", root, "/usr/local/bin/python", "-c", "import ssl, sqlite3, venv, ensurepip")


def pack(root: Path, archive: Path) -> None:
    """Put a root file system into an archive."""
    call("tar", "-C", root, "--numeric-owner", "-cf", archive, ".", timeout_s=300)


def make_archives(folder: Path, scratch: Path) -> None:
    """Make the archives of both images in a folder, unless they are there."""
    python, prometheus = folder / "python.tar", folder / "prometheus.tar"
    if python.exists() and prometheus.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    root, prefix = scratch / "root", find_python()
    # Where there is no 3.12, Debian's own 3.11, which is within the locks' range.
    make_root(root, (*PACKAGES, *(() if prefix else ("python3", "python3-venv"))))
    if HOST_CERTIFICATES.exists():  # of hosts behind a private authority
        shutil.copyfile(HOST_CERTIFICATES, root / "etc/ssl/certs/ca-certificates.crt")
    (root / "prometheus").mkdir()
    os.chown(root / "prometheus", 65534, 65534)
    packages = scratch / "packages"
    packages.mkdir()
    # As root, for apt drops its rights where its sandbox user could not write.
    call("apt-get", "-o", "APT::Sandbox::User=root", "download", "prometheus", cwd=packages)
    call("dpkg", "-x", next(packages.glob("*.deb")), packages / "files")
    binary = root / "bin/prometheus"
    shutil.copy2(packages / "files/usr/bin/prometheus", binary)
    pack(root, prometheus)
    binary.unlink()
    (root / "prometheus").rmdir()
    if prefix:
        add_python(root, prefix)
    else:
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    pack(root, python)
    subprocess.run(["rm", "-rf", root, packages], check=True)  # noqa: S607


def load_images(engine: Engine, folder: Path) -> None:
    """Make the images of the archives."""
    certificates = "/etc/ssl/certs/ca-certificates.crt"
    engine.load_root(
        folder / "python.tar",
        PYTHON_TAG,
        f"ENV PATH={PATH}",
        "ENV LANG=C.UTF-8",
        f"ENV PIP_CERT={certificates}",
        f"ENV SSL_CERT_FILE={certificates}",
        'CMD ["python"]',
    )
    engine.load_root(
        folder / "prometheus.tar",
        PROMETHEUS_TAG,
        "USER 65534",
        "VOLUME /prometheus",
        'ENTRYPOINT ["/bin/prometheus"]',
    )
