"""What a service in production leaves in MLflow: its requests as traces, in an experiment of their own.

It judges nothing, and a climb's runs are never written here. Start reading at `live_traces.py`.
"""
