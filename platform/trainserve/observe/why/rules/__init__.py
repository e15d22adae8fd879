"""The causes, a subject a module: one rule a cause. Their order stands in `observe/why/table.py`."""
