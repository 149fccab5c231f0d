"""The record of everything measured, spent and decided, in MLflow: climbs, stages, upkeep, registry, figures, bills.

It never measures or decides: verdicts are judged from what is read back. Start at `run.py`, then `climb_run.py`;
at `alpha_account.py` for the alpha a question draws, at `registry.py` for promotions.
"""
