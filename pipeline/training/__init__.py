"""Training by the paper's recipe, in plain torch."""
