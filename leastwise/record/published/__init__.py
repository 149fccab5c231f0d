"""Candidates as MLflow models that can be loaded and served. It answers nothing and moves no alias.

Start at `candidate_files.py`.
"""
