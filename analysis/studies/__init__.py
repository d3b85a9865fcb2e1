"""What a study is doing: its stages, its trials, how it compares."""
