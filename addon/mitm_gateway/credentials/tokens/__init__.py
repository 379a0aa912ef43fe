"""Helper programs of our own: a sign-in becomes a short-lived token, and the addon never calls out."""
