"""Kept for handlers that import from here."""
