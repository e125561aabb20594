"""Envelopes: they turn a request format into handler input, and results back."""
