"""Perception: how the person feels, read from what they say (clips, voice and face join behind the same EmotionState)."""
