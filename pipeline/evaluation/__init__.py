"""Testing trained networks: protocols, predictions, metrics, ensembles."""
