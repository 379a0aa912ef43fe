"""Recorded requests: as a list, as text, as JSON Lines, as a page, or as cases for a rules file."""
