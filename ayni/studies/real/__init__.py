"""Studies on real data of the user's, from a model of the user's."""
