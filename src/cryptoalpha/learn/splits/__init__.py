"""Which samples may teach and which must judge, so that no label of the judges was seen while learning."""
