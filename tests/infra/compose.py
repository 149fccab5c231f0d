"""The compose files as docker-compose itself reads them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from infra import env_file
from leastwise.stores.shipped import ROOT

COMPOSE = shutil.which("docker-compose", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
Services = dict[str, dict[str, Any]]


def read(file: str, secrets: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `docker-compose config` says of it; the environment is as empty as can be."""
    command = [str(COMPOSE), "--env-file", str(secrets), "--profile", "*", "-f", str(ROOT / "infra" / file)]
    return subprocess.run(
        [*command, "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def services_of(file: str, folder: Path, **environment: str) -> Services:
    """Its services, with the secrets of the folder, which are made up where there are none."""
    secrets = folder / "secrets.env"
    if not secrets.exists():
        secrets.write_text(env_file.filled(env_file.EXAMPLE.read_text()))
    done = read(file, secrets, **environment)
    assert not done.returncode, done.stderr
    services: Services = json.loads(done.stdout)["services"]
    return services
