"""Speed measurements: `make perf`. Ratios within one process, variants interleaved, medians."""
