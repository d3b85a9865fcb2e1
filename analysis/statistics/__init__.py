"""Numbers over trials: groups of seeds, estimates, tests, fits, fronts."""
