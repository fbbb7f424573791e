"""Speed against the peers, side by side in one run."""
