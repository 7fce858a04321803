"""The page: a gradio chat that shows what elmd read, beside what it says."""
