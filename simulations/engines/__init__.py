"""How messages reach hosts: in this process (`local`) or through Flower's own simulation (`ray`)."""
