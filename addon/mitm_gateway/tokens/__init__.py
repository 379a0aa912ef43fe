"""Helper programs of our own: what turns a sign-in into a short-lived token, so that the addon never calls out."""
