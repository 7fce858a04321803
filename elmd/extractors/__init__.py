"""Extractors: raw media to arrays over time; one file each, named as a user types it; `elmd.zoo.EXTRACTORS` finds them.

The contract of an entry: the first docstring line says what it is; `Config` (a Strict) has a default for every key;
`Extractor(config)` has `name`, `modality`, `columns`, `revision` (what the values depend on) and
`extract(clip) -> Features`, which loads its model on first use and returns no rows where there is nothing to measure.
"""
