"""The one name of a run in MLflow: a climb, a stage, or an upkeep run. It opens nothing."""

from typing import NewType

RunId = NewType("RunId", str)
