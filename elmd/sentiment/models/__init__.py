"""Sentiment models: one file each, named as a user types it; `elmd.zoo.SENTIMENT` finds them.

The contract of an entry: the first docstring line says what it is and the rest names the paper and the choices made;
`Config` (a Strict) has a default for every key; `Model(config, shape)` is a `SentimentModel` of `elmd.sentiment.base`.
"""
