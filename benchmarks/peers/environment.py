"""Environments of peers that are no dependency of the project: virtual ones under mlruns/peers, never committed.

fastai is installed without what it depends on; what it imports of that is named here or lies in the project's own
environment, which is visible there, so that both train with the same PyTorch and timm. AutoGluon admits neither the
project's PyTorch nor its timm, pandas or Pillow: it gets all of its own, as it asks for them (about 7 GB). Two releases
of the package `lightning`, 2.6.2 and 2.6.3, were malware: an earlier one is taken.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

__all__ = ["ENVIRONMENTS", "FOLDER", "interpreter", "make"]

FOLDER = Path("mlruns") / "peers"

ENVIRONMENTS: dict[str, tuple[tuple[str, ...], bool]] = {
    "fastai": (
        (
            "fastai==2.8.12",
            "fastcore==2.2.41",
            "fastdownload==0.0.8",
            "fastprogress==1.0.5",
            "fasttransform==0.0.5",
            "plum-dispatch==2.9.0",
            "beartype==0.23.1",
        ),
        True,
    ),
    "autogluon": (("autogluon.multimodal==1.6.3", "lightning==2.6.1", "setuptools<82"), False),
}
"""Name -> what is installed; whether into a layer on the project's environment, without what it depends on."""


def interpreter(name: str) -> Path:
    """Python of an environment; "" is the project's."""
    return (FOLDER / name / "bin" / "python").absolute() if name else Path(sys.executable)


def make(name: str) -> None:
    """Make an environment anew.

    Raises:
        subprocess.CalledProcessError: a package cannot be had; the installer has said which.
    """
    packages, layered = ENVIRONMENTS[name]
    folder = FOLDER / name
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)  # noqa: S603
    if layered:
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "project.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    install = [sys.executable, "-m", "uv", "pip", "install", "--python", interpreter(name)]
    subprocess.run([*install, *(["--no-deps"] if layered else []), *packages], check=True)  # noqa: S603
