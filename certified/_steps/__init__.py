"""What a pipeline is made of: steps that are functions of the set of rows."""
