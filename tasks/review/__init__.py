"""What people are asked about a judged stage's answers, and the tables their grades and corrected labels become.

It judges nothing and moves no verdict. Start at `answers.py`; the queue itself is in `leastwise.record.review`.
"""
