"""Parents and children: propagation of ends, and trackers for batches."""
