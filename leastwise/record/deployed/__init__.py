"""What a stage's run holds of the endpoint that was started for its candidate: where it answers, and what it carried.

It measures and starts nothing, and no verdict rests on it. Start reading at `load_report.py`.
"""
