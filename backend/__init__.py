"""The zygote and its forked workers: sealed messages in, handler calls."""
