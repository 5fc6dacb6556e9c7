"""Speed and accuracy of the numerical core, beside RELION's programs: `make bench`, `python -m benchmarks --help`."""
