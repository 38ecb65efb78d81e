"""The pipeline, one verb per file: load records, call parts, save records."""
