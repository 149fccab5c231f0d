"""The pure core of Leastwise: what a use case is, when a candidate passes, and which stage comes next.

It does not read files, call models or know MLflow and Prefect; effects live in `tasks/`, sequences in `flows/`.
"""
