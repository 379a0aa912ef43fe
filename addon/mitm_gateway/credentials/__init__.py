"""Secrets and where they come from: environment, files, helper programs, AWS."""
