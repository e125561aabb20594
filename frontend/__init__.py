"""The one frontend process: HTTP in, jobs, workers out."""
