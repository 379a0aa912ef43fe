"""The meaning of the providers' JSON: models, token counts, conversations, hints."""
