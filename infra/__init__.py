"""What runs the pipeline: the launcher, and the parts of a cluster."""
