"""Parameters, FLOPs, memory and disk of networks, training steps and stages. No torch."""
