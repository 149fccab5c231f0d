#!/bin/sh
# What every container starts with: the tables of the saved use cases are built where they are missing (a second of
# work; EXAMPLES=0 leaves them out), then the command takes this process's place, so that it hears SIGTERM itself.
set -eu
if [ "${EXAMPLES:-1}" = 1 ]; then
  python -m use_cases.build_alert_triage >/dev/null
fi
exec "$@"
