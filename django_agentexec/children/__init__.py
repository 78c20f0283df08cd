"""Parents and children: `propagation` of ends, and `tracker` for batches."""
