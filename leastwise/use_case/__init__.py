"""What somebody wants: task, data, requirements, traffic, models, settings and money, as one frozen model.

It never reads a file, looks at a row or knows how a requirement is tested. Start reading at `use_case.py`.
"""

from leastwise.use_case.stages import LADDER, Stage
from leastwise.use_case.use_case import Approval, Models, OnUndecided, Traffic, UseCase

__all__ = ["LADDER", "Approval", "Models", "OnUndecided", "Stage", "Traffic", "UseCase"]
