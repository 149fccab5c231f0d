"""An instruction rewritten by a model that reads what went wrong on dev: only with headroom, adopted only if surely
better.

It is the last step of a search, after every other axis; it never sees a gate or test row, and `gepa` is spoken to here
and nowhere else. Start reading at `reflecting.py`.
"""
