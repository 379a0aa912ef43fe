"""HTTP's own vocabulary: addresses, request heads, refusals, content encodings, event streams, signatures."""
