"""Multimodal sentiment analysis (MSA): one file a model in `models/`, one trainer for all of them."""
