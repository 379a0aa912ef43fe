"""Built-in helpers: a sign-in becomes a short-lived token, in a process of its own outside the proxy."""
