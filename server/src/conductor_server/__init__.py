"""The prediction plane: loads models, reads online features, answers."""
