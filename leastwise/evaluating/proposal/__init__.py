"""A candidate that somebody proposes: read from a file of what differs, or from the registry, and checked before money.

It asks no model, judges nothing and draws no alpha. Start reading at `reading.py`, then `checking.py`.
"""
