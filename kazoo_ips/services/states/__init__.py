"""The states of addresses: what the operator, the time and other programs make of them."""
