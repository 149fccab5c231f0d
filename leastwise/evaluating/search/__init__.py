"""A stage's candidate searched for on dev: is the model set up fit to answer, then one axis after another.

It never sees a gate row, draws no alpha and judges nothing: one candidate a model goes to the gate. Start reading at
`search.py`; which axes there are and in which order is in `axes.py`.
"""
