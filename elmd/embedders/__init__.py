"""Sentence encoders: text to unit vectors.

An entry defines `Config` and `Embedder(config)` with `name`, `revision` (changes whenever the vectors would),
`encode(texts) -> (n, dimension) float32 unit rows` and `token_vectors(texts) -> [(tokens, dimension) float32]`.
"""
