"""EERG, emotion-enhanced response generation: prompt, demonstrations and emotions to the words of the reply."""
