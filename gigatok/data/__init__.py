"""Images and everything that they come from: data sets, splits, crops, downloads."""
