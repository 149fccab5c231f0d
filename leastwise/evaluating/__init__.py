"""A candidate measured: looks over the gate's rows, scored, tested, logged, read back and judged; and its tries.

It never renders a prompt or asks a model itself, and never decides which stage comes next.

Start reading at `evaluation.py`, then `stage.py`.
"""
