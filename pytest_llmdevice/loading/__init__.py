"""How a cell is loaded: strategies, quantization, the target, and the plan it is held against."""
