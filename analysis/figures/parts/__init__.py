"""What figures share: the registry, marks of published numbers, fronts and fitted laws."""
