"""Leastwise, the library: the least customization of a language model that meets its requirements, found and proved.

One folder a concern, each importing only those above it: use_case, evidence, money, metrics, ladder (pure), stores,
rows, models, endpoints, engines, record, answering, evaluating, training, serving. It never imports Prefect: sequences
are in `flows/`, what a stage or verb does as a task is in `tasks/`. Start reading at `ladder/`.
"""

__version__ = "0.1.0"
