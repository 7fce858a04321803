"""Keeps transformers from talking on stderr: elmd has its own bars, and says itself what goes wrong."""

import warnings


def quiet() -> None:
    """Turn off transformers' progress bars, load reports and deprecation warnings."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\..*")
