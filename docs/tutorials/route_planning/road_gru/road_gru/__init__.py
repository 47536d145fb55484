"""GRU steps with attention over road links, for millstream."""
