"""Speech recognition: one file each, named as a user types it; `elmd.zoo.ASR` finds them.

The contract of an entry: the first docstring line says what it is; `Config` (a Strict) has a default for every key;
`Recogniser(config)` has `name` and `transcribe(audio, language) -> tuple[Segment, ...]` for mono float32 audio at
16 kHz; Chinese comes in simplified characters, silence gives no segment.
"""
