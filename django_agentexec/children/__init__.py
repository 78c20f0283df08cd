"""Parents and children: spawn and gather, propagation of ends, group, chain and chord, and trackers for batches."""
