"""Files: tensor records, state pickles, atomic writing."""
