"""One file, one exam: benchmark, gate and reward."""
