"""Folders of images: encode and decode them with a tokenizer, score one against another."""
