"""What somebody wants: task, data, requirements, traffic, models, settings and money, as one frozen model.

It never reads a file, looks at a row or knows how a requirement is tested. Start reading at `use_case.py`.
"""

from leastwise.use_case.model import Models
from leastwise.use_case.stages import LADDER, Stage
from leastwise.use_case.traffic import Traffic
from leastwise.use_case.training import Training
from leastwise.use_case.use_case import Approval, OnUndecided, UseCase

__all__ = ["LADDER", "Approval", "Models", "OnUndecided", "Stage", "Traffic", "Training", "UseCase"]
