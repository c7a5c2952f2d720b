"""Installs the peers, one by one, into the environment that runs this: a peer that cannot be installed costs no other.

    .venv-bench/bin/python -m tools.bench.install

The dependency group `bench` of pyproject.toml says which. Each is resolved together with attrtrain and the peers before it, so that all of them work in one environment; of
constraints.txt only the versions are held that matter to what is measured. Why one is missing is kept for the tables.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from attrtrain.files import atomic_write
from tools.bench.contest import ROOT

_HELD = ("torch", "torchvision", "numpy", "pillow", "simplejpeg", "opencv-python-headless")
_REASONS = Path(sys.prefix) / "missing_peers.json"
_MODULES = {"streaming": "mosaicml-streaming", "nvidia": "nvidia-dali-cuda130"}


def install_peers() -> dict[str, str]:
    """Installs what can be. Returns the reason for each requirement that cannot."""
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["bench"]
    missing: dict[str, str] = {}
    accepted = ["--editable", str(ROOT)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as held:
        held.write("".join(f"{name}=={metadata.version(name)}\n" for name in _HELD))
        held.flush()
        for requirement in group:
            print(f"installing {requirement} ...", flush=True)
            failure = _install([*accepted, requirement], Path(held.name))
            if failure is None:
                accepted.append(requirement)
            else:
                name = re.split(r"[<>=\[; ]", requirement)[0]
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


def _install(requirements: list[str], constraints: Path) -> str | None:
    """Returns None, or what the installer complained of."""
    command = ["uv", "pip", "install", "--python", sys.executable, "--constraint", str(constraints), *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return _told(done.stderr)


def _told(complaint: str) -> str:
    """What an installer complained of, in a line."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    if "No solution found" in complaint:  # the proof's last steps name those that do not go together
        proof = " ".join(lines)
        return (
            "versions do not go together: " + proof[proof.rfind("And because ", 0, proof.rfind("And because ")) :][:300]
        )
    errors = [line for line in lines if re.match(r"(\w*Error|ERROR|error|× )", line) and "hint" not in line]
    return (errors or lines or ["no message"])[-1][:300]


if __name__ == "__main__":
    install_peers()
