"""What the pipelines of others ask for: one candidate judged for a pull request, certificates written and checked.

It sequences nothing, moves no alias and trains nothing. Start reading at `gate.py`.
"""
