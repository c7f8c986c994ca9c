"""The one place the package's version is written; ``setup.py`` reads this file without importing the package."""

__version__ = "0.2.0"
