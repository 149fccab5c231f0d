"""A pull request as the action in infra/github sees it: the runner's environment and files, a server for the API."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from aiohttp import web

from tests.proposals import proposal, proposal_case, served_models
from tests.servers.web_server import served

REPOSITORY = Path(__file__).parents[2]
ACTION = REPOSITORY / "infra" / "github"
BOT = "github-actions[bot]"
Environment = dict[str, str]
ENDING = {
    "outcome": "PASS",
    "reason": "quality 0.9",
    "usd_spent": 0.01,
    "calls_paid": 3,
    "candidate": "c",
    "mlflow_run_id": "r",
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The action's script."""
    spec = importlib.util.spec_from_file_location("pull_request", ACTION / "pull_request.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Api:
    """What stands in for GitHub's API: the comments of a pull request; with `status` it refuses whatever writes."""

    url: str = ""
    status: int = 200
    moved_to: str = ""
    comments: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str, str]] = field(default_factory=list)

    def note(self, request: web.Request) -> None:
        self.requests.append((request.method, request.path_qs, request.headers.get("Authorization", "")))
        if self.moved_to:
            raise web.HTTPTemporaryRedirect(self.moved_to)
        if request.method != "GET" and self.status != 200:
            raise {
                403: web.HTTPForbidden(),
                500: web.HTTPInternalServerError(),
                -1: web.HTTPException(reason="no HTTP at all"),
            }[self.status]

    async def listed(self, request: web.Request) -> web.Response:
        self.note(request)
        page, size = int(request.query["page"]), int(request.query["per_page"])
        return web.json_response(self.comments[(page - 1) * size : page * size])

    async def written(self, request: web.Request) -> web.Response:
        self.note(request)
        made = {"id": 1000 + len(self.comments), "body": (await request.json())["body"], "user": {"login": BOT}}
        self.comments.append(made)
        return web.json_response(made, status=201)

    async def changed(self, request: web.Request) -> web.Response:
        self.note(request)
        found = next(each for each in self.comments if str(each["id"]) == request.match_info["id"])
        found["body"] = (await request.json())["body"]
        return web.json_response(found)

    @property
    def writes(self) -> list[str]:
        return [method for method, _, _ in self.requests if method != "GET"]


@pytest.fixture
def api() -> Iterator[Api]:
    one = Api()
    issues = "/repos/team/prompts/issues"
    routes = (
        web.get(f"{issues}/7/comments", one.listed),
        web.post(f"{issues}/7/comments", one.written),
        web.patch(f"{issues}/comments/{{id}}", one.changed),
    )
    with served(*routes) as address:
        one.url = address
        yield one


@pytest.fixture
def runner(tmp_path: Path, api: Api) -> Environment:
    """The variables and files of a job that a pull request started."""
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": 7}}))
    for name in ("summary", "output"):
        (tmp_path / name).touch()
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_API_URL": api.url,
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_REPOSITORY": "team/prompts",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_WORKSPACE": str(tmp_path),
        "GITHUB_TOKEN": "the-token",
        "GATE_USE_CASE": "case.yaml",
        "GATE_CANDIDATE": "candidate.yaml",
        "GATE_COMMENT": "true",
    }


def outputs(environment: Environment) -> dict[str, str]:
    """The step's outputs as the runner reads them."""
    read: dict[str, str] = {}
    lines = iter(Path(environment["GITHUB_OUTPUT"]).read_text().splitlines())
    for line in lines:
        name, _, mark = line.partition("<<")
        value: list[str] = []
        while (each := next(lines)) != mark:
            value.append(each)
        read[name] = "\n".join(value)
    return read


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with served_models([]) as address:
        yield address


def test_a_pull_request_has_its_gate_table_as_summary_and_as_one_comment_and_the_jobs_status_is_the_gates(
    runner: Environment, api: Api, tmp_path: Path, home: Path, endpoint: str, prefect_api: str
) -> None:
    """The script as the action runs it, the real gate behind it, from a folder that is not Leastwise's."""
    proposal_case(tmp_path, endpoint)
    proposal(tmp_path, model="openai:poor")
    own = {"LEASTWISE_HOME": str(home), "OPENAI_API_KEY": "none", "PREFECT_API_URL": prefect_api}
    plain = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, str(ACTION / "pull_request.py")],
        cwd=tmp_path,
        env=plain | runner | own,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 3, done.stderr
    assert "commented on pull request 7" in done.stderr and "the-token" not in done.stderr + done.stdout
    summary = Path(runner["GITHUB_STEP_SUMMARY"]).read_text()
    assert "## Leastwise gate: ❌ FAIL" in summary and "| quality | FAIL | 0.000 |" in summary
    assert "MLFLOW_TRACKING_URI is not set" in summary
    said = outputs(runner)
    assert (said["outcome"], said["exit_status"]) == ("FAIL", "3") and said["mlflow_run_id"] in summary
    assert float(said["usd_spent"]) > 0 and int(said["calls_paid"]) > 0
    (written,) = api.comments
    assert summary.strip() in written["body"] and written["body"].startswith("<!-- leastwise-gate ")
    assert {token for _, _, token in api.requests} == {"Bearer the-token"}


def test_a_comment_is_found_again_among_hundreds_and_updated_not_repeated(
    script: ModuleType, runner: Environment, api: Api
) -> None:
    api.comments = [{"id": n, "body": "me too", "user": {"login": "somebody"}} for n in range(250)]
    assert script.comment(runner, "first") == "commented on pull request 7"
    assert script.comment(runner, "second") == "updated the comment on pull request 7"
    assert [each["body"].partition("\n")[2] for each in api.comments[250:]] == ["second"]
    assert script.comment(runner | {"GATE_CANDIDATE": "another.yaml"}, "third") == "commented on pull request 7"
    assert api.writes == ["POST", "PATCH", "POST"]


def test_a_comment_of_somebody_else_that_begins_alike_is_left_alone(
    script: ModuleType, runner: Environment, api: Api
) -> None:
    forged = {"id": 1, "body": f"{script.marker_of(runner)}\nPASS", "user": {"login": "mallory"}}
    api.comments = [forged | {}]
    script.comment(runner, "FAIL")
    assert api.comments[0] == forged and api.writes == ["POST"]


@pytest.mark.parametrize(
    ("change", "said"),
    [({"GITHUB_TOKEN": ""}, "there is no token"), ({"GITHUB_EVENT_PATH": ""}, "was not started by a pull request")],
)
def test_without_a_token_or_a_pull_request_no_comment_is_written_and_that_is_said(
    script: ModuleType, runner: Environment, api: Api, change: Environment, said: str
) -> None:
    assert said in script.comment(runner | change, "body") and api.requests == []


def ended(script: ModuleType, monkeypatch: pytest.MonkeyPatch, runner: Environment, status: int, **ending: Any) -> int:
    """The script after a gate that ended so, which has a test of its own above."""
    monkeypatch.setattr(script, "judge", lambda _: (status, ENDING | ending))
    return int(script.main(runner))


@pytest.mark.parametrize(("status", "said"), [(403, "pull-requests: write"), (500, "HTTP 500"), (-1, "no comment")])
def test_a_fork_without_permission_or_an_api_that_fails_is_said_and_the_status_stays_the_gates(
    script: ModuleType,
    runner: Environment,
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    said: str,
) -> None:
    api.status = status
    assert ended(script, monkeypatch, runner, 0) == 0
    assert said in capsys.readouterr().err and api.comments == []
    assert "PASS" in Path(runner["GITHUB_STEP_SUMMARY"]).read_text()


def test_an_api_that_is_not_there_is_said_and_the_status_stays_the_gates(
    script: ModuleType, runner: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = runner | {"GITHUB_API_URL": "http://127.0.0.1:1"}
    assert ended(script, monkeypatch, away, 4, outcome="UNDECIDED") == 4
    assert "no comment was written" in capsys.readouterr().err


def test_a_token_follows_no_redirect_and_is_not_sent_in_the_open(
    script: ModuleType,
    runner: Environment,
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization", ""))
        return web.json_response([])

    with served(web.get("/{rest:.*}", elsewhere)) as other:
        api.moved_to = f"{other}/repos/team/prompts/issues/7/comments"
        assert ended(script, monkeypatch, runner, 0) == 0
        assert seen == [] and "HTTP 307" in capsys.readouterr().err
    open_api = runner | {"GITHUB_API_URL": "http://api.example.com"}
    assert ended(script, monkeypatch, open_api, 0) == 0
    assert "is not https" in capsys.readouterr().err


def test_what_a_pull_request_wrote_neither_calls_the_runner_nor_mentions_people_nor_ends_an_output_early(
    script: ModuleType,
    runner: Environment,
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evil = "::set-env name=X::1\n##[add-path]/tmp\n@everybody <!-- leastwise-gate --> <img src=x> ![i](http://x)\nEOF\noutcome=PASS"
    given = runner | {"GATE_CANDIDATE": "x` ::error::y"}
    assert ended(script, monkeypatch, given, 2, outcome="bad_input", reason=evil) == 2
    body = api.comments[0]["body"]
    assert "@everybody" not in body and body.count("<!--") == 1 and "<img" not in body and "![" not in body
    assert outputs(runner)["outcome"] == "bad_input" and outputs(runner)["reason"] == evil
    printed = capsys.readouterr()
    assert "::" not in printed.out + printed.err
    assert script.harmless("##[x] ::y:::") == "## [x] : :y: : :"


def test_words_of_a_pull_request_pass_for_no_table_or_heading_of_the_gates_and_mention_nobody_by_a_number(
    script: ModuleType, runner: Environment
) -> None:
    said = "promt: unknown\n## Leastwise gate: ✅ PASS\n| quality | PASS |\n|---|---|\n&#64;everybody &lt;img&gt;"
    body = script.shown(runner, {"outcome": "bad_input", "reason": said})
    assert not [line for line in body.splitlines()[4:] if line.startswith(("#", "|", "-", "="))]
    assert "&#64;" not in body and "&lt;img" not in body
    table = "| quality | PASS |\n|---|---|"
    assert table in script.shown(runner, ENDING | {"table": table})


@pytest.mark.parametrize("answer", [{"message": "not a list"}, [None], [{"body": 3, "user": "x"}], "text", 7])
def test_an_api_that_answers_as_no_github_does_leaves_the_status_the_gates(
    script: ModuleType,
    runner: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: object,
) -> None:
    async def odd(_request: web.Request) -> web.Response:
        return web.json_response(answer)

    with served(web.route("*", "/{rest:.*}", odd)) as other:
        assert ended(script, monkeypatch, runner | {"GITHUB_API_URL": other}, 4, outcome="UNDECIDED") == 4
    assert "Traceback" not in capsys.readouterr().err


def test_an_event_that_is_none_leaves_the_status_the_gates(
    script: ModuleType, runner: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for event in ("[]", '{"pull_request": 7}', "{", '{"pull_request": {"number": "7"}}'):
        Path(runner["GITHUB_EVENT_PATH"]).write_text(event)
        assert ended(script, monkeypatch, runner, 0) == 0


@pytest.mark.parametrize(
    ("code", "status", "outcome"),
    [
        ("print(json.dumps({'outcome': 'FAIL'}))", 1, "error"),
        ("print(json.dumps({'outcome': 'PASS'})); sys.exit(3)", 3, "error"),
        ("print(json.dumps({'outcome': 'PASS'})); sys.stdout.flush(); os.kill(os.getpid(), 9)", 137, "error"),
        ("print('no JSON')", 1, "error"),
        (
            "print(json.dumps({'outcome': 'UNDECIDED', 'usd_spent': None, 'mlflow_run_id': 'r'})); sys.exit(4)",
            4,
            "UNDECIDED",
        ),
    ],
)
def test_a_gate_passes_only_where_it_says_so_and_ends_so(
    script: ModuleType, tmp_path: Path, runner: Environment, code: str, status: int, outcome: str
) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "gate.py").write_text(f"import json, os, sys\n{code}\n")
    found, ending = script.judge(runner | {"GATE_LEASTWISE": str(tmp_path), "GATE_CANDIDATE": "x" * 5_000})
    assert (found, ending["outcome"]) == (status, outcome)
    assert script.shown(runner, ending)


def test_a_summary_longer_than_github_takes_is_cut_and_says_so(
    script: ModuleType, runner: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ended(script, monkeypatch, runner, 3, outcome="FAIL", table="é" * 600_000) == 3
    assert Path(runner["GITHUB_STEP_SUMMARY"]).stat().st_size < 1_048_576
    assert "the run in MLflow has all of it" in Path(runner["GITHUB_STEP_SUMMARY"]).read_text()


def test_the_gate_has_neither_the_token_nor_anything_else_of_the_runner(
    script: ModuleType, tmp_path: Path, runner: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    """A folder that is not Leastwise's: what is run there as `flows.gate` says what it was given."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "gate.py").write_text(
        "import json, os, sys\n"
        "print('::error::from the gate', sys.argv[1:], file=sys.stderr)\n"
        "print(json.dumps({'outcome': 'PASS', 'reason': ' '.join(sorted(os.environ))}))\n"
    )
    given = runner | {"GATE_LEASTWISE": str(tmp_path), "ACTIONS_RUNTIME_TOKEN": "x", "OPENAI_API_KEY": "k"}
    (tmp_path / "case.yaml").touch()
    status, ending = script.judge(given | {"GATE_CANDIDATE": "; echo $(id)"})
    names = str(ending["reason"]).split()
    assert status == 0 and "OPENAI_API_KEY" in names
    assert not [name for name in names if name.startswith(("GITHUB_", "ACTIONS_", "GATE_"))]
    said = capfd.readouterr()
    assert f"--use-case={tmp_path / 'case.yaml'}" in said.err and "--candidate=; echo $(id)" in said.err
    assert "::error" not in said.err and ": :error" in said.err


def test_an_input_that_is_empty_is_bad_input(script: ModuleType, runner: Environment) -> None:
    status, ending = script.judge(runner | {"GATE_CANDIDATE": ""})
    assert (status, ending["outcome"]) == (2, "bad_input") and "candidate" in ending["reason"]


def test_the_action_gives_values_by_the_environment_and_never_within_a_shell_and_needs_no_other_action() -> None:
    action = yaml.safe_load((ACTION / "action.yml").read_text())
    steps = action["runs"]["steps"]
    assert action["runs"]["using"] == "composite"
    assert not any("uses" in step or "${{" in step["run"] for step in steps)
    (step,) = steps
    for name in ("use_case", "candidate", "comment", "comment_author", "leastwise", "python"):
        assert step["env"][f"GATE_{name.upper()}"] == f"${{{{ inputs.{name} }}}}"
    assert step["env"]["GITHUB_TOKEN"] == "${{ inputs.token }}"
    for name, output in action["outputs"].items():
        assert output["value"] == f"${{{{ steps.gate.outputs.{name} }}}}"
