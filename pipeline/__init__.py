"""The library behind the stages: data, networks, training, evaluation, tracking and report."""
