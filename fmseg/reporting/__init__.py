"""Pictures and tables, made from files."""
