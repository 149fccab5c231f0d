"""A step of the ladder carried out: a stage's flow run here or on a pool, or a person asked.

It decides no step. Start reading at `stages.py`.
"""
