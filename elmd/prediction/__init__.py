"""REP, response emotion prediction: which emotion the reply should carry."""
