"""The version, read by the package, its build and every record it writes."""

__version__ = "0.1.0"
