"""How a candidate's answer is read where it is not what the model wrote: the likeliest label, calibrated.

It asks nothing and fits nothing: the calibration is the candidate's own. Start reading at `labels.py`.
"""
