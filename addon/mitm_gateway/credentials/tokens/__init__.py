"""Built-in helpers: a sign-in becomes a short-lived token, in a separate process outside the proxy."""
