"""What a load or a generation did: to the process, to torch's modes, to the model; and what it used."""
