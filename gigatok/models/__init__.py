"""The networks of the study: tokenizers, generators and their parts. One file per component."""
