"""Data sets: one file each, named as a user types it; `elmd.zoo.DATASETS` finds them.

The contract of an entry: the first docstring line says what it is; `CARD` (a `DatasetCard`) says what it needs;
`read(root, split, on_bad=stop)` yields `Dialogue`s with `id`, `source`, `license`, `language` and `split` set.
A bad row goes to `on_bad` and reading goes on if that returns; a missing file raises UsageError, a split the set
does not have UnknownName. A missing label is None. An utterance that is left out (bad, or without words) cuts its
dialogue into stretches "id~0", "id~1", so that no reply is ever paired with words it did not answer.
"""
