"""What a run looks like: its records, progress, report, evaluations and trackers."""
