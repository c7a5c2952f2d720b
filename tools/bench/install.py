"""Installs the peers, one by one, into the environment that runs this: a peer that cannot be installed costs no other.

    .venv-bench/bin/python -m tools.bench.install

The dependency group `bench` of pyproject.toml says which. Each is resolved together with attrtrain and the peers before
it, so that all of them work in one environment; of constraints.txt only the versions are held that matter to what is
measured. A peer that needs older packages than attrtrain gets an environment of its own. Why one is missing is kept for
the tables.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from attrtrain.files import atomic_write
from tools.bench.contest import ROOT

_HELD = ("torch", "torchvision", "numpy", "pillow", "simplejpeg", "opencv-python-headless")
_REASONS = Path(sys.prefix) / "missing_peers.json"
_MODULES = {"streaming": "mosaicml-streaming", "nvidia": "nvidia-dali-cuda130"}
_APART = {"mosaicml-streaming": ("huggingface-hub<1",)}
"""Peers with an environment of their own, and what of attrtrain's requirements gives way to theirs there; reading
shards needs none of it.
"""
_HELD_APART = ("torch", "torchvision", "pillow", "simplejpeg")
"""A peer that is not of our time may want another NumPy; who decodes and resizes stays the same."""


def install_peers() -> dict[str, str]:
    """Installs what can be. Returns the reason for each requirement that cannot."""
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["bench"]
    missing: dict[str, str] = {}
    accepted = ["--editable", str(ROOT)]
    for requirement in group:
        print(f"installing {requirement} ...", flush=True)
        name = re.split(r"[<>=\[; ]", requirement)[0]
        if name in _APART:
            failure = _install_apart(name, requirement)
        else:
            failure = _install(sys.executable, [*accepted, requirement], _HELD)
            accepted += [requirement] if failure is None else []
        if failure is not None:
            missing[name] = failure
            print(f"  left out: {failure}", flush=True)
    with atomic_write(_REASONS) as file:
        file.write(json.dumps(missing, indent=1).encode() + b"\n")
    return missing


def reason_not_installed(module: str) -> str:
    """Why the package of a module was not installed, where `install_peers` tried."""
    name = _MODULES.get(module.partition(".")[0], module.partition(".")[0])
    if not _REASONS.exists():
        return "install it with `make bench`"
    reason = json.loads(_REASONS.read_text()).get(name)
    return f"installing it failed: {reason}" if reason else "not installed"


def environments_apart() -> dict[str, Path]:
    """The peers that have an environment for themselves, each with its folder."""
    folders = {peer: _folder_apart(peer) for peer in _APART}
    return {peer: folder for peer, folder in folders.items() if (folder / "bin" / "python").exists()}


def _folder_apart(peer: str) -> Path:
    return Path(sys.prefix) / "apart" / peer


def _install_apart(name: str, requirement: str) -> str | None:
    folder = _folder_apart(name)
    failure = _ran(["uv", "venv", "--clear", "--python", sys.executable, str(folder)])
    if failure is None:
        wanted = ["--editable", str(ROOT), requirement]
        failure = _install(str(folder / "bin" / "python"), wanted, _HELD_APART, _APART[name])
    if failure is not None:
        shutil.rmtree(folder, ignore_errors=True)
    return failure


def _install(python: str, requirements: Sequence[str], held: Sequence[str], instead: Sequence[str] = ()) -> str | None:
    """Installs into the environment of an interpreter. Returns None, or what the installer complained of.

    Args:
        python: that interpreter.
        requirements: what to install.
        held: packages that stay at the version that they have here.
        instead: requirements that take the place of whatever others say of these packages.
    """
    with tempfile.TemporaryDirectory() as folder:
        constraints, overrides = Path(folder) / "constraints.txt", Path(folder) / "overrides.txt"
        constraints.write_text("".join(f"{name}=={metadata.version(name)}\n" for name in held))
        overrides.write_text("".join(f"{line}\n" for line in instead))
        files = ["--constraint", str(constraints), "--override", str(overrides)]
        return _ran(["uv", "pip", "install", "--python", python, *files, *requirements])


def _ran(command: Sequence[str]) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else _told(done.stderr)


def _told(complaint: str) -> str:
    """What an installer complained of, in a line."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    if "No solution found" in complaint:  # the proof's last steps name those that do not go together
        proof = " ".join(lines)
        steps = re.split(r"(?=\b(?:And b|B)ecause )", proof)
        return "versions do not go together: " + "".join(steps[-2:])[:300]
    errors = [line for line in lines if re.match(r"(\w*Error|ERROR|error|× )", line) and "hint" not in line]
    return (errors or lines or ["no message"])[-1][:300]


if __name__ == "__main__":
    install_peers()
