"""One candidate of a pull request at the gate, as GitHub shows it: job summary, outputs, one comment kept up to date.

It runs `flows.gate` and ends with its status, whatever becomes of the comment. It needs Python alone. Everything comes
by the environment of the runner and of `action.yml`. The token is sent to the host of GITHUB_API_URL and nowhere else:
it is not given to the gate, and no redirect is followed. What a pull request wrote is shown as text: it cannot call the
runner's commands, mention people, or pass for this script's own comment.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MOST_COMMENT_CHARACTERS = 60_000  # GitHub takes 65,536
MOST_SUMMARY_CHARACTERS = 250_000  # GitHub takes 1 MiB, and a character may have four bytes
MOST_PAGES, PER_PAGE = 30, 100
TIMEOUT_S = 30.0
MARK = {"PASS": "✅ PASS", "FAIL": "❌ FAIL", "UNDECIDED": "❔ UNDECIDED"}
OUTPUTS = ("outcome", "reason", "usd_spent", "calls_paid", "mlflow_run_id")
NO_SERVER = (
    "MLFLOW_TRACKING_URI is not set: verdicts and the alpha account of the gate rows stay on this runner. Where it is "
    "thrown away after the job, each run judges as if nobody had ever asked these rows, and alpha does not hold over "
    "several pull requests; name a tracking server."
)
Environment = Mapping[str, str]


class Refused(Exception):  # noqa: N818 - says what is so, as the project's own errors do
    """The API did not do what it was asked; the message says how it answered."""


NAMED = (Refused, OSError, ValueError, http.client.HTTPException)  # whose words say what is so


def main(environment: Environment) -> int:
    """Run the gate, show what came of it, and give back its exit status."""
    status, ending = judge(environment)
    body = shown(environment, ending)
    append(environment.get("GITHUB_STEP_SUMMARY"), cut(body, MOST_SUMMARY_CHARACTERS, "the run in MLflow") + "\n")
    write_outputs(environment, {name: ending.get(name, "") for name in OUTPUTS} | {"exit_status": status})
    if environment.get("GATE_COMMENT", "true") == "true":
        try:
            say(comment(environment, body))
        except Exception as why:  # whatever an API, or what stands in for one, answers: the status is the gate's
            words = str(why) if isinstance(why, NAMED) else f"the API answered as no GitHub does ({type(why).__name__})"
            say(f"no comment was written: {words}; the job's summary has the table")
    return status


def say(text: str) -> None:
    """A line of the job's log that is no command of the runner."""
    print(one_line(text), file=sys.stderr)


def harmless(text: str) -> str:
    """A line without what begins a command of the runner, in either of its forms."""
    return re.sub(":(?=:)", ": ", text).replace("##[", "## [")


def one_line(text: str) -> str:
    """A text without line ends, as a harmless line."""
    return harmless(" ".join(text.split()))


def is_of_the_runner(name: str) -> bool:
    """Whether a variable is the runner's own, with its tokens and command files: nothing the gate has to do with."""
    return name.startswith(("ACTIONS_", "GITHUB_", "GATE_", "INPUT_", "GH_"))


def judge(environment: Environment) -> tuple[int, dict[str, Any]]:
    """The gate's exit status and its line of JSON; what it says to people is relayed to the job's log."""
    given = {name: environment.get(f"GATE_{name}", "") for name in ("USE_CASE", "CANDIDATE")}
    if missing := [name.lower() for name, value in given.items() if not value]:
        return 2, {"outcome": "bad_input", "reason": f"{' and '.join(missing)}: is empty; give the action's input"}
    root = environment.get("GATE_LEASTWISE") or str(Path(__file__).resolve().parents[2])
    use_case, candidate = (absolute(value, environment) for value in given.values())
    command = [sys.executable, "-m", "flows.gate", f"--use-case={use_case}", f"--candidate={candidate}"]
    kept = {name: value for name, value in environment.items() if not is_of_the_runner(name)}
    with tempfile.TemporaryFile() as out:
        with subprocess.Popen(command, cwd=root, env=kept, stdout=out, stderr=subprocess.PIPE) as gate:
            assert gate.stderr is not None
            for line in gate.stderr:
                print(harmless(line.decode(errors="replace").rstrip()), file=sys.stderr, flush=True)
        out.seek(0)
        lines = out.read().decode(errors="replace").strip().splitlines()
    try:
        ending = json.loads(lines[-1])
        if not isinstance(ending, dict):
            raise ValueError
    except (IndexError, ValueError):
        return status_of(gate) or 1, {"outcome": "error", "reason": "the gate ended without its line of JSON"}
    if (status_of(gate) == 0) != (ending.get("outcome") == "PASS"):
        words = f"the gate said {ending.get('outcome')} and ended with {status_of(gate)}"
        return status_of(gate) or 1, ending | {"outcome": "error", "reason": words, "table": ""}
    return status_of(gate), ending


def status_of(gate: subprocess.Popen[bytes]) -> int:
    """Its exit status; of one that a signal ended, as a shell has it."""
    return gate.returncode if gate.returncode >= 0 else 128 - gate.returncode


def absolute(value: str, environment: Environment) -> str:
    """A path of the checked-out repository as an absolute one; a name or a URI as it is."""
    path = Path(environment.get("GITHUB_WORKSPACE", "."), value)
    try:
        is_path = "://" not in value and not value.startswith("models:/") and path.exists()
    except OSError:  # longer than any name may be
        is_path = False
    return str(path.resolve()) if is_path else value


def shown(environment: Environment, ending: Mapping[str, Any]) -> str:
    """What came of it in Markdown."""
    outcome = str(ending.get("outcome", "error"))
    lines = [
        f"## Leastwise gate: {MARK.get(outcome, outcome)}",
        "",
        f"`{code(environment.get('GATE_CANDIDATE', ''))}` for `{code(environment.get('GATE_USE_CASE', ''))}`",
        "",
        as_text(str(ending["table"])) if ending.get("table") else as_words(str(ending.get("reason", ""))),
        "",
    ]
    if ending.get("mlflow_run_id"):
        spent = f"${float(ending.get('usd_spent') or 0.0):.4f}, {ending.get('calls_paid') or 0} calls paid"
        lines.append(f"{spent}. MLflow run `{code(str(ending['mlflow_run_id']))}`, candidate `{code(_key(ending))}`.")
    if not environment.get("MLFLOW_TRACKING_URI"):
        lines += ["", f"> {NO_SERVER}"]
    return "\n".join(lines)


def _key(ending: Mapping[str, Any]) -> str:
    return str(ending.get("candidate", ""))


def code(text: str) -> str:
    """A text between backticks."""
    return one_line(text).replace("`", "'")


def as_text(markdown: str) -> str:
    """Markdown that mentions nobody, hides nothing and links no image."""
    plain = markdown.replace("&", "&amp;")  # first: what stands for an @ is one to whoever reads mentions
    return plain.replace("@", "@\u200b").replace("<", "&lt;").replace("![", "!\u200b[")


def as_words(text: str) -> str:
    """Words of a pull request that begin no heading, table or rule: none may pass for the gate's own."""
    return "\n".join(f"\u200b{as_text(line)}" for line in text.splitlines())


def cut(text: str, most: int, where: str) -> str:
    """A text of at most so many characters, which says where the rest is."""
    return text if len(text) <= most else f"{text[:most]}\n\n… cut; {where} has all of it."


def append(path: str | None, text: str) -> None:
    """Add to one of the runner's files, where there is one."""
    if path:
        with Path(path).open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)


def write_outputs(environment: Environment, outputs: Mapping[str, object]) -> None:
    """The step's outputs, each between marks that nobody can foresee."""
    for name, value in outputs.items():
        mark = secrets.token_hex(16)
        append(environment.get("GITHUB_OUTPUT"), f"{name}<<{mark}\n{value}\n{mark}\n")


def comment(environment: Environment, body: str) -> str:
    """Write or update the comment of this use case and candidate; gives back what was done, in words."""
    number = pull_request_number(environment)
    if number is None:
        return "no comment: the job was not started by a pull request"
    token = environment.get("GITHUB_TOKEN", "")
    if not token:
        return "no comment: there is no token (a pull request of a fork has none that may write)"
    api, repository = api_url(environment), environment.get("GITHUB_REPOSITORY", "")
    marker = marker_of(environment)
    text = cut(f"{marker}\n{body}", MOST_COMMENT_CHARACTERS, "the job's summary")
    issue = f"{api}/repos/{repository}/issues"
    try:
        found = found_comment(environment, f"{issue}/{number}/comments", marker, token)
        if found is None:
            asked("POST", f"{issue}/{number}/comments", token, {"body": text})
            return f"commented on pull request {number}"
        asked("PATCH", f"{issue}/comments/{found}", token, {"body": text})
        return f"updated the comment on pull request {number}"
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):
            return (
                f"no comment: the token may not write here (HTTP {error.code}), as that of a pull request of a fork, "
                "or of a job without permissions: pull-requests: write; the job's summary has the table"
            )
        raise Refused(f"the API answered HTTP {error.code}") from None


def pull_request_number(environment: Environment) -> int | None:
    """The number of the pull request whose event started the job."""
    file = environment.get("GITHUB_EVENT_PATH", "")
    event = json.loads(Path(file).read_text(encoding="utf-8")) if file and Path(file).exists() else {}
    number = (event.get("pull_request") or {}).get("number")
    return number if isinstance(number, int) else None


def api_url(environment: Environment) -> str:
    """Where the API is; a token goes over TLS, or to this very machine."""
    api = environment.get("GITHUB_API_URL") or "https://api.github.com"
    parts = urlsplit(api)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise Refused(f"GITHUB_API_URL {api} is not https, and a token is not sent in the open")
    return api.rstrip("/")


def marker_of(environment: Environment) -> str:
    """What hidden text the comment of this use case and candidate begins with."""
    named = json.dumps([environment.get("GATE_USE_CASE", ""), environment.get("GATE_CANDIDATE", "")])
    return f"<!-- leastwise-gate {hashlib.sha256(named.encode()).hexdigest()[:16]} -->"


def found_comment(environment: Environment, comments: str, marker: str, token: str) -> int | None:
    """The comment this script wrote before: another's that begins alike is left alone, since its author could change
    afterwards what the table says.
    """
    author = environment.get("GATE_COMMENT_AUTHOR") or "github-actions[bot]"
    for each in _every(comments, token):
        if str(each.get("body", "")).startswith(marker) and (each.get("user") or {}).get("login") == author:
            return int(each["id"])
    return None


def _every(comments: str, token: str) -> Iterator[dict[str, Any]]:
    for page in range(1, MOST_PAGES + 1):
        several = asked("GET", f"{comments}?per_page={PER_PAGE}&page={page}", token)
        yield from several
        if len(several) < PER_PAGE:
            return


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A redirect is an error: urllib would send the token along to wherever it leads."""


def asked(method: str, url: str, token: str, body: Mapping[str, str] | None = None) -> Any:
    """One request to the API, and its answer."""
    request = urllib.request.Request(  # noqa: S310 - api_url has looked at the scheme
        url,
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "User-Agent": "leastwise-gate",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S) as reply:
        return json.loads(reply.read())


if __name__ == "__main__":
    raise SystemExit(main(os.environ))
