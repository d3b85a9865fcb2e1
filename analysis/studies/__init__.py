"""Studies while they run and after: stages, trials, comparisons."""
