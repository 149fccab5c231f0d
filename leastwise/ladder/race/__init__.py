"""The race of a stage's tries as arithmetic: whose turn it is to be measured, and for how many examples.

It measures nothing, asks nobody and decides no verdict (see `leastwise.evaluating.racing`). Start reading at
`schedule.py`.
"""
