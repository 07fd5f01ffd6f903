"""One file per stage. A stage is a function `run(settings, inputs..., out) -> Artifact`; stages never call each other."""
