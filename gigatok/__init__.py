"""The science: models, losses, training and scores of visual tokenizers.

Knows no cluster, no MLflow and no sweep.
"""
