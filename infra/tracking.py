"""MLflow's server as several machines use it: accounts on, artifacts passed through it, so that only it has S3's key.

`python -m infra.tracking` writes the accounts' settings into the state directory, readable for its user alone, and
becomes `mlflow server`. All else is MLflow's own environment (MLFLOW_BACKEND_STORE_URI, MLFLOW_ARTIFACTS_DESTINATION,
MLFLOW_HOST, MLFLOW_SERVER_ALLOWED_HOSTS). It makes no database: `infra.state` does.
"""

from __future__ import annotations

import configparser
import io
import os
import sys
from pathlib import Path

USER = "leastwise"
# Asked with every call, so a right password is remembered for a minute: deriving it anew takes longer than the answer.
REMEMBERED_S = 60
NEEDED = ("MLFLOW_AUTH_DATABASE_URI", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")
COMMAND = ("-m", "mlflow", "server", "--serve-artifacts", "--app-name", "basic-auth")


def accounts(database_uri: str) -> str:
    """MLflow's settings of accounts: one account at first; who has none may do nothing."""
    settings = configparser.ConfigParser(interpolation=None)
    settings["mlflow"] = {
        "default_permission": "NO_PERMISSIONS",
        "database_uri": database_uri,
        "admin_username": USER,
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "auth_cache_ttl_seconds": str(REMEMBERED_S),
    }
    text = io.StringIO()
    settings.write(text)
    return text.getvalue()


def main() -> None:
    """Ends with status 2 where something is not set; else this process becomes MLflow's."""
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        print(f"leastwise: {', '.join(missing)}: not set; infra/secrets.env has the secrets", file=sys.stderr)
        sys.exit(2)
    folder = Path(os.environ.get("LEASTWISE_HOME") or ".leastwise")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "accounts.ini"
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(accounts(os.environ["MLFLOW_AUTH_DATABASE_URI"]))
    own = {"MLFLOW_AUTH_CONFIG_PATH": str(file), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    os.execve(sys.executable, [sys.executable, *COMMAND], os.environ | own)  # noqa: S606 - it takes this one's place


if __name__ == "__main__":
    main()
