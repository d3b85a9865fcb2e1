"""The chart grammar: figures as data, their style, how they are drawn and written."""
