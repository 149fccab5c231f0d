"""A model of a hub: asked only where a person says so, and what is said when it may not be is what works."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from leastwise.errors import BadInput
from leastwise.models import weights
from tests.servers.web_server import served

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ASKS = """
import flows
from leastwise.errors import BadInput
from leastwise.models import weights
try:
    print(weights.revision("hf://org/name"))
except BadInput as refused:
    print(refused)
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """A hub that knows one model's commit."""

    async def about(_: web.Request) -> web.Response:
        return web.json_response({"id": "org/name", "sha": COMMIT, "siblings": [], "tags": [], "downloads": 0})

    with served(web.get("/api/models/org/name/revision/main", about)) as address:
        yield address


def asked(hub: str, home: Path, **variables: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    environment = {**kept, "HF_ENDPOINT": hub, "LEASTWISE_HOME": str(home), **variables}
    command = [sys.executable, "-c", ASKS]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_hub_is_asked_by_the_very_setting_that_the_refusal_names(hub: str, tmp_path: Path) -> None:
    refused = asked(hub, tmp_path)
    setting = next(word for word in refused.split() if word.startswith("HF_HUB_OFFLINE="))
    name, _, value = setting.partition("=")
    assert asked(hub, tmp_path, **{name: value}) == COMMIT


def test_what_was_fetched_once_is_known_without_the_hub(hub: str, tmp_path: Path) -> None:
    reference = tmp_path / "models" / "hub" / "models--org--name" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    reference.write_text(COMMIT)
    assert asked("http://127.0.0.1:9", tmp_path) == COMMIT


def test_weights_whose_fetch_was_cut_off_are_not_trusted(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model-00001-of-00002.safetensors"):
        (tmp_path / name).write_text("{}")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(BadInput, match=r"not all of its weights, model-00002-of-00002.safetensors is missing"):
        weights.materialize(f"file://{tmp_path}", tmp_path)
