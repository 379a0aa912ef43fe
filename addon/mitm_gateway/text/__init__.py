"""Hostile or secret text made harmless: masking, printable text, bounded JSON."""
