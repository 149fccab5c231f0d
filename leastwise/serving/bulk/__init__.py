"""A long table answered by a registered winner, a shard at a time: cut, answered, written, each of them once.

It judges nothing and moves no alias, and no verdict rests on it. Start reading at `shards.py` (what a shard is and how
it is cut), then `answering_rows.py` (who answers) and `answered_shards.py` (what is written).
"""
