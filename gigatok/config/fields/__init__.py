"""What configs are made of: their base, marks on fields, choices among kinds, and identity."""
