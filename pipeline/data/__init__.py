"""From any source of images to a fast store, and from the store to batches for training."""
