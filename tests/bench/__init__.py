"""What the harness itself can do on this machine; ``make bench`` writes docs/benchmarks.md."""
