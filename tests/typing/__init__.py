"""A user project that uses every public name. `make types` runs mypy and pyright over it; it is never executed."""
