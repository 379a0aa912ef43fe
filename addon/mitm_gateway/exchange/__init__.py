"""One request and its response, pure: admission, plan, edits, restore, record."""
