"""The five systems that this project began with: their matrices, targets, bugs and fixes."""
