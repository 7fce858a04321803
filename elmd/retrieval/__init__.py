"""ERM, the emotion retrieval module: finds how others answered in such a moment."""
